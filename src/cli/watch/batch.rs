//! Saves that belong together: an editor writes, renames and sets rights; a script changes five files.

use std::time::Duration;

/// How long after a file was closed or took its final name more may follow.
const AFTER_WHOLE: Duration = Duration::from_millis(20);
/// How long after anything else, such as a file half written or gone.
const AFTER_PART: Duration = Duration::from_millis(100);
/// The longest wait, however much goes on.
const MOST: Duration = Duration::from_millis(500);

/// What a notification says of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touch {
    /// It is there and whole.
    Whole,
    /// It is being written, moved away or removed: something must follow.
    Part,
}

/// Notifications that have come and are not acted upon yet.
#[derive(Clone, Copy, Debug, Default)]
pub struct Batch(Option<(Duration, Duration)>);

impl Batch {
    /// Adds a notification that came `now`.
    pub fn add(&mut self, touch: Touch, now: Duration) {
        let wait = match touch {
            Touch::Whole => AFTER_WHOLE,
            Touch::Part => AFTER_PART,
        };
        let first = self.0.map_or(now, |(first, _)| first);
        self.0 = Some((first, (now + wait).min(first + MOST)));
    }

    /// When to act, if there is anything to act upon.
    pub fn due(&self) -> Option<Duration> {
        self.0.map(|(_, due)| due)
    }

    /// Begins anew.
    pub fn clear(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_whole_file_is_taken_up_at_once_and_a_part_waits_for_the_rest() {
        let mut batch = Batch::default();
        assert_eq!(batch.due(), None);
        batch.add(Touch::Part, ms(1000));
        assert_eq!(batch.due(), Some(ms(1100)));
        batch.add(Touch::Whole, ms(1010));
        assert_eq!(batch.due(), Some(ms(1030)));
        batch.clear();
        assert_eq!(batch.due(), None);
    }

    #[test]
    fn endless_changes_are_not_waited_for() {
        let mut batch = Batch::default();
        (0..100).for_each(|i| batch.add(Touch::Part, ms(i * 50)));
        assert_eq!(batch.due(), Some(ms(500)));
    }
}
