//! With the feature `cuda`: has nvcc make PTX of our kernels. Without it, nothing.

use std::path::PathBuf;
use std::process::Command;
use std::{env, process};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    println!("cargo::rerun-if-changed=ops/kernels");
    println!("cargo::rerun-if-env-changed=NVCC");
    let nvcc = env::var_os("NVCC").unwrap_or_else(|| "nvcc".into());
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    for source in ["attention", "norm", "pointwise"] {
        let mut command = Command::new(&nvcc);
        // PTX for the oldest card that has the instructions; the driver compiles it for the one it finds.
        command
            .args(["--ptx", "-std=c++17", "-O3", "-arch=compute_80"])
            .arg(format!("ops/kernels/{source}.cu"))
            .arg("-o")
            .arg(out.join(format!("{source}.ptx")));
        match command.status() {
            Ok(status) if status.success() => {}
            Ok(status) => fail(&format!("nvcc did not compile {source}.cu ({status})")),
            Err(error) => fail(&format!(
                "the feature `cuda` needs CUDA's compiler, and `{}` cannot be run ({error}); docs/gpu.md says how to get it",
                nvcc.display()
            )),
        }
    }
}

fn fail(why: &str) -> ! {
    println!("cargo::error={why}");
    process::exit(1);
}
