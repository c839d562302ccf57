//! What each job of a plan would compute, told before anything runs.

use std::collections::BTreeMap;

use petgraph::graph::NodeIndex;

use crate::{Files, Hash, Plan};

impl Plan {
    /// The signature of every job, by [`NodeIndex::index`]: type, version, arguments with the contents of files, and the
    /// signatures of its producers. Names, order and layout do not enter, so a job is found again in the plan of an
    /// edited file.
    ///
    /// Equal signatures mean equal results; unlike keys, results of equal content do not make later signatures equal.
    /// `None`: a file of the job, or of one before it, cannot be read now.
    pub fn signatures(&self, files: &Files) -> Vec<Option<Hash>> {
        let salt = Hash::of(b"signature");
        let mut signatures = vec![None; self.graph().node_count()];
        for &job in self.order() {
            signatures[job.index()] = self.signature(job, files, &salt, &signatures);
        }
        signatures
    }

    fn signature(&self, job: NodeIndex, files: &Files, salt: &Hash, known: &[Option<Hash>]) -> Option<Hash> {
        let input = |(producer, link): (NodeIndex, &crate::Link)| {
            let from = known[producer.index()]?;
            let value = Hash::builder().part(from.as_bytes()).part((link.from_output as u64).to_le_bytes());
            Some((link.input, value.finish()))
        };
        let values: BTreeMap<_, _> = self.inputs(job).map(input).collect::<Option<_>>()?;
        self.job(job).key(&values, files, salt).ok()
    }
}
