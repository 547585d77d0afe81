//! A look at all of a log: every block is read, checked and decoded.

use crate::error::LogError;
use crate::log::{Gap, LogReader};
use crate::source::LogSource;

/// Records between two reports of progress.
const RECORDS_A_REPORT: u64 = 64 << 10;

/// What a log was found to be.
#[derive(Clone, Debug, Default)]
pub struct Verified {
    /// Records that can be read.
    pub records: u64,
    /// Segments that can be read, at least in part.
    pub segments: u64,
    /// Their size, in bytes.
    pub bytes: u64,
    /// What is damaged.
    pub gaps: Vec<Gap>,
    /// First record that was lost for want of room, if any was.
    pub first_lost_seq: Option<u64>,
}

/// Reads all of a log. `progress` is told now and then how many bytes of how many are done, and may end the work by
/// returning false.
///
/// # Errors
/// If there is nothing that can be read: no log, or one of a newer version.
pub fn verify(source: impl Into<LogSource>, mut progress: impl FnMut(u64, u64) -> bool) -> Result<Verified, LogError> {
    let mut reader = LogReader::open_damaged(source)?;
    let mut found = Verified {
        segments: reader.segments().len() as u64,
        bytes: reader.segments().iter().map(|segment| segment.len).sum(),
        ..Verified::default()
    };
    while reader.next()?.is_some() {
        found.records += 1;
        if found.records.is_multiple_of(RECORDS_A_REPORT) && !progress(reader.bytes_passed(), found.bytes) {
            break;
        }
    }
    found.gaps = reader.gaps().to_vec();
    match reader.first_lost_seq() {
        Ok(seq) => found.first_lost_seq = seq,
        Err(error) => {
            let first_seq = reader.last_seq()?.map_or(0, |last| last + 1);
            found.gaps.push(Gap { first_seq, next_seq: None, error });
        }
    }
    progress(found.bytes, found.bytes);
    Ok(found)
}
