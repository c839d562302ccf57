//! The border around a node: a panic in it becomes an error that names the node.

use std::{
    any::Any,
    panic::{self, AssertUnwindSafe, PanicHookInfo},
    sync::{
        Mutex, Once,
        atomic::{AtomicUsize, Ordering},
    },
};

use flow_graph::NodeError;

/// The name of the one thread that device nodes run on.
pub(crate) const DEVICE_THREAD: &str = "flow-device";

/// How many nodes are running in this process.
static RUNNING: AtomicUsize = AtomicUsize::new(0);

/// Panics in nodes that no border has met yet: their text and where they were.
static PANICS: Mutex<Vec<(String, String)>> = Mutex::new(Vec::new());

/// Runs `work` of a node of type `kind`; a panic in it is an error, and nothing of it is printed.
pub(crate) fn guarded<T>(kind: &str, work: impl FnOnce() -> Result<T, NodeError>) -> Result<T, NodeError> {
    install_hook();
    RUNNING.fetch_add(1, Ordering::SeqCst);
    let done = panic::catch_unwind(AssertUnwindSafe(work));
    RUNNING.fetch_sub(1, Ordering::SeqCst);
    done.unwrap_or_else(|payload| {
        let text = text_of(&*payload);
        let place = place_of(&text).map(|place| format!(" ({place})")).unwrap_or_default();
        Err(NodeError::new(format!("bug in `{kind}`, please report: {text}{place}")))
    })
}

/// Puts a hook before the process's own that remembers the panics of nodes and prints nothing about them.
///
/// A node may panic on a thread it did not start on (rayon's), so the hook asks what kind of thread it is on and whether
/// any node runs at all, not which node is to blame.
fn install_hook() {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |info| if in_a_node() { remember(info) } else { others(info) }));
    });
}

fn in_a_node() -> bool {
    let on_worker =
        rayon::current_thread_index().is_some() || std::thread::current().name() == Some(DEVICE_THREAD);
    on_worker && RUNNING.load(Ordering::SeqCst) > 0
}

fn remember(info: &PanicHookInfo) {
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    if let Ok(mut panics) = PANICS.lock() {
        panics.push((text_of(info.payload()), place));
    }
}

fn place_of(text: &str) -> Option<String> {
    let mut panics = PANICS.lock().ok()?;
    let index = panics.iter().position(|(known, _)| known == text)?;
    Some(panics.swap_remove(index).1)
}

fn text_of(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "panic".to_owned())
}
