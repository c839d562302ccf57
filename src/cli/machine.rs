//! What the machine has: memory, processors, GPUs. By hand where a few lines do: a crate would bring every system's
//! interfaces and still not know the limits of a nested control group.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The main memory this process may use: the machine's, or less where a control group (a container, a batch job) says so.
pub fn main_memory() -> Option<u64> {
    let total = if cfg!(target_os = "linux") {
        total(&fs::read_to_string("/proc/meminfo").unwrap_or_default())
    } else {
        // macOS and the BSDs; Windows has no such program and stays unknown.
        said("sysctl", &["-n", "hw.memsize"]).and_then(|text| text.trim().parse().ok())
    };
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    [total, limit(&groups, Path::new("/sys/fs/cgroup"))].into_iter().flatten().min()
}

/// `MemTotal` of `/proc/meminfo`, in bytes.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The lowest memory limit of the control groups a process is in, of either version, and of those around them.
fn limit(groups: &str, mounted: &Path) -> Option<u64> {
    let mut lowest: Option<u64> = None;
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':');
        let (_, Some(controllers), Some(group)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        let (root, file) = match controllers {
            "" => (mounted.to_owned(), "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                (mounted.join("memory"), "memory.limit_in_bytes")
            }
            _ => continue,
        };
        // Inside a container the path may be the host's, so that only the root exists.
        let inner = root.join(group.trim_start_matches('/'));
        let around = inner.ancestors().take_while(|dir| dir.starts_with(&root)).map(Path::to_owned);
        for dir in around.collect::<Vec<PathBuf>>() {
            let said = fs::read_to_string(dir.join(file)).ok().and_then(|text| text.trim().parse().ok());
            lowest = [lowest, said].into_iter().flatten().min();
        }
    }
    lowest
}

/// A graphics card as its driver's own program tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpu {
    /// Its name.
    pub name: String,
    /// Its memory in bytes.
    pub memory: u64,
}

/// The NVIDIA cards of this machine, as far as `nvidia-smi` is there to ask.
pub fn gpus() -> Vec<Gpu> {
    let asked = ["--query-gpu=memory.total,name", "--format=csv,noheader,nounits"];
    cards(&said("nvidia-smi", &asked).unwrap_or_default())
}

fn cards(listed: &str) -> Vec<Gpu> {
    let card = |line: &str| {
        let (mebibytes, name) = line.split_once(',')?;
        let memory = mebibytes.trim().parse::<u64>().ok()?.checked_mul(1 << 20)?;
        Some(Gpu { name: name.trim().to_owned(), memory })
    };
    listed.lines().filter_map(card).collect()
}

/// The memory of the smallest card: CUDA numbers cards in an order of its own.
pub fn gpu_memory() -> Option<u64> {
    gpus().into_iter().map(|gpu| gpu.memory).min()
}

fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What the processor can do that the kernels know how to use.
pub fn cpu_features() -> Vec<&'static str> {
    #[cfg(target_arch = "x86_64")]
    {
        [
            ("avx2", std::is_x86_feature_detected!("avx2")),
            ("fma", std::is_x86_feature_detected!("fma")),
            ("f16c", std::is_x86_feature_detected!("f16c")),
            ("avx512f", std::is_x86_feature_detected!("avx512f")),
            ("avx512bf16", std::is_x86_feature_detected!("avx512bf16")),
        ]
        .into_iter()
        .filter_map(|(name, there)| there.then_some(name))
        .collect()
    }
    #[cfg(target_arch = "aarch64")]
    {
        let neon = std::arch::is_aarch64_feature_detected!("neon");
        let fp16 = std::arch::is_aarch64_feature_detected!("fp16");
        [("neon", neon), ("fp16", fp16)]
            .into_iter()
            .filter_map(|(name, there)| there.then_some(name))
            .collect()
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_limit_of_nested_groups_counts() {
        let root = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let second = "0::/user.slice/job/step\n";
        assert_eq!(limit(second, root.path()), None);
        put("user.slice/job/step/memory.max", "max\n");
        assert_eq!(limit(second, root.path()), None);
        put("user.slice/job/memory.max", "4294967296\n");
        put("user.slice/memory.max", "8589934592\n");
        assert_eq!(limit(second, root.path()), Some(4 << 30));

        let first = "9:name=systemd:/\n4:cpu,memory:/docker/abc\n";
        put("memory/memory.limit_in_bytes", "9223372036854771712\n");
        put("memory/docker/abc/memory.limit_in_bytes", "2147483648\n");
        assert_eq!(limit(first, root.path()), Some(2 << 30));
        assert_eq!(limit("4:memory:/not/seen/from/inside\n", root.path()), Some(9_223_372_036_854_771_712));
    }

    #[test]
    fn totals_are_read_from_what_systems_print() {
        assert_eq!(total("MemTotal:       24683848 kB\nMemFree: 1 kB\n"), Some(24_683_848 * 1024));
        assert_eq!(total("nothing"), None);
        let card = Gpu { name: "NVIDIA GeForce RTX 3060".to_owned(), memory: 12288 << 20 };
        assert_eq!(cards("12288, NVIDIA GeForce RTX 3060\nnot a card\n"), [card]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_machine_tells_its_memory() {
        assert!(main_memory().unwrap() > 64 << 20);
    }
}
