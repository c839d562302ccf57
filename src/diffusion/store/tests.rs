use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::fixture;

fn header() -> (tempfile::TempDir, Header) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.safetensors");
    fixture::shapes_only(&path, [("a", vec![1])]);
    let header = Header::read(&path).unwrap();
    (dir, header)
}

fn recipe(header: &Header, part: &str) -> Recipe {
    Recipe::new(header, part, DType::F32, &Device::Cpu)
}

fn ran_out() -> Error {
    let message = "DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")";
    Error::from(candle_core::Error::Cuda(message.into()))
}

#[test]
fn what_is_held_is_loaded_once_and_stays() {
    let (_dir, header) = header();
    let store = WeightStore::new(100);
    let held = store.lease(&recipe(&header, "a"), 100, || Ok(1u32)).unwrap();
    let again =
        store.lease(&recipe(&header, "a"), 100, || -> Result<u32> { panic!("loaded twice") }).unwrap();
    assert!(Arc::ptr_eq(&held, &again));
    store.evict_unused();
    assert_eq!(store.bytes(), 100);
    drop((held, again));
    store.evict_unused();
    assert_eq!(store.bytes(), 0);
}

#[test]
fn room_is_made_before_a_load_and_the_least_recently_used_goes_first() {
    let (_dir, header) = header();
    let store = WeightStore::new(20);
    let lease = |part: &str| {
        let loaded = Cell::new(false);
        let load = || {
            loaded.set(true);
            assert!(store.bytes() <= 10, "room was made before");
            Ok(part.to_owned())
        };
        store.lease(&recipe(&header, part), 10, load).unwrap();
        loaded.get()
    };
    assert!(lease("a") && lease("b"));
    assert!(!lease("a"));
    assert!(lease("c"), "evicts b");
    assert!(!lease("a"));
    assert!(lease("b"));
    assert_eq!(store.bytes(), 20);
}

#[test]
fn weights_that_do_not_fit_beside_what_is_in_use_say_need_and_have() {
    let (_dir, header) = header();
    let store = WeightStore::new(3 << 30);
    let _held = store.lease(&recipe(&header, "unet"), 2 << 30, || Ok(1u32)).unwrap();
    let load = || -> Result<u32> { panic!("there is no room to load into") };
    let error = store.lease(&recipe(&header, "controlnet"), 1500 << 20, load).unwrap_err();
    assert_eq!(
        error.to_string(),
        "out of memory: the controlnet of `w.safetensors` in F32 needs 1.5 GiB; of the 3.0 GiB for models and results, \
         2.0 GiB are in use by models (unet of `w.safetensors` in F32, 2.0 GiB) and 0 KiB by results"
    );
}

#[test]
fn weights_use_what_results_do_not_and_results_go_before_a_load_fails() {
    let (_dir, header) = header();
    let results = Arc::new(AtomicU64::new(60));
    let (used, evicted) = (results.clone(), results.clone());
    let others = Others {
        used: Box::new(move || used.load(Ordering::Relaxed)),
        evict: Box::new(move || evicted.store(15, Ordering::Relaxed)),
    };
    let store = WeightStore::new(100).beside(others);
    store.lease(&recipe(&header, "a"), 30, || Ok(())).unwrap();
    assert_eq!((store.free(), results.load(Ordering::Relaxed)), (10, 60));
    store.lease(&recipe(&header, "b"), 40, || Ok(())).unwrap();
    assert_eq!((store.bytes(), results.load(Ordering::Relaxed)), (40, 60), "dropping `a` was enough");
    store.lease(&recipe(&header, "c"), 80, || Ok(())).unwrap();
    assert_eq!((store.bytes(), results.load(Ordering::Relaxed)), (80, 15));
    assert!(store.lease(&recipe(&header, "d"), 90, || Ok(())).is_err());
}

#[test]
fn a_load_that_runs_out_of_memory_is_tried_again_without_what_is_unused() {
    let (_dir, header) = header();
    let store = WeightStore::new(u64::MAX);
    store.lease(&recipe(&header, "unused"), 10, || Ok(())).unwrap();
    let calls = Rc::new(Cell::new(0));
    let load = || {
        calls.set(calls.get() + 1);
        if store.bytes() > 0 { Err(ran_out()) } else { Ok(7u32) }
    };
    assert_eq!(*store.lease(&recipe(&header, "new"), 10, load).unwrap(), 7);
    assert_eq!((calls.get(), store.bytes()), (2, 10));
}

#[test]
fn one_recipe_cannot_be_two_types() {
    let (_dir, header) = header();
    let store = WeightStore::new(20);
    let _held = store.lease(&recipe(&header, "a"), 1, || Ok(1u32)).unwrap();
    assert!(store.lease(&recipe(&header, "a"), 1, || Ok(1u64)).is_err());
}
