//! CUDA graphs: work that is put on the stream once and from then on repeated as a whole, which spares its thousand or so
//! launches.

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::CudaGraph;
use candle_core::cuda_backend::cudarc::driver::sys::{
    CUgraphInstantiate_flags as Flags, CUstreamCaptureMode as Mode,
};
use candle_core::{CudaDevice, Device};

use crate::{Error, Result};

/// Recorded work. It reads and writes the arrays it was recorded with, so these must be held as long as it is.
pub(crate) struct Graph(CudaGraph);

impl Graph {
    /// Records what `work` puts on the device's stream; nothing of it is done yet. All arrays that `work` makes must be gone
    /// when it returns, those it finds must stay, and it must not read from the device. It has to have been done before
    /// in [`remembering`]: then kernels are loaded, and small numbers they are told are on the device already.
    ///
    /// # Errors
    /// Those of `work`, and those of the driver if something in it cannot be recorded. The stream is usable afterwards.
    pub fn record(device: &Device, work: impl FnOnce() -> Result<()>) -> Result<Self> {
        let stream = device.as_cuda_device()?.cuda_stream();
        stream.begin_capture(Mode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).w()?;
        let done = remembering(device, work);
        // Ends the recording whether it went well or not.
        let graph = stream.end_capture(Flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH);
        done?;
        match graph.w()? {
            Some(graph) => Ok(Self(graph)),
            None => Err(Error::Mismatch("nothing was recorded".into())),
        }
    }

    /// Puts the recorded work on the stream.
    ///
    /// # Errors
    /// Those of the driver.
    pub fn repeat(&self) -> Result<()> {
        Ok(self.0.launch().w()?)
    }
}

/// Does `work` while candle keeps on the device what it sends there of shapes and strides, so that it need not be sent
/// again when the work is recorded.
pub(crate) fn remembering<T>(device: &Device, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let device: &CudaDevice = device.as_cuda_device()?;
    let _kept = device.enable_cuda_graph_htod_cache();
    work()
}
