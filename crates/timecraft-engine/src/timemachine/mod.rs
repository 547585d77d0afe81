//! Views of what the guest's connections carried, out of its log alone: events on sockets, and the requests in them.
//!
//! [`connections`] follows descriptors through the calls, [`protocol`] tells what is spoken, [`network`] and
//! [`requests`] write what there is to see. A [`Traffic`] reads a log once, front to back, in bounded memory.

pub mod connections;
pub mod form;
pub mod http1;
pub mod network;
pub mod protocol;
pub mod requests;

use std::net::IpAddr;

use timecraft_log::{BlockFilter, LogError, LogReader, LogSource};

use crate::recorder::{CALL_END, CALL_START, Record};
use connections::{CALLS, Connections, DESCRIPTORS_MAX, Given};
use form::{Form, Moment, Stamp};
use network::NetworkTrace;
use protocol::{Close, Side};
use requests::{RequestTrace, Talk};

/// Records that one [`Traffic::read`] looks at, at most, so that its caller gets to see to other things.
const BATCH_RECORDS: u64 = 1 << 17;

/// What is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    Network,
    Request,
}

/// How it is shown.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub form: Form,
    pub stamp: Stamp,
    /// With bytes, or headers and bodies.
    pub verbose: bool,
    pub color: bool,
    pub filter: Filter,
    /// The sockets that the guest had from its start, as its configuration tells.
    pub given: Vec<Given>,
}

/// Which connections are shown: those that all of it fits.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Either end's address.
    pub host: Option<IpAddr>,
    /// Either end's port.
    pub port: Option<u16>,
    pub side: Option<Side>,
}

/// Which part of the log is shown. What is before it is read all the same, since connections are older than what
/// passes on them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Window {
    pub from_ns: Option<u64>,
    pub until_ns: Option<u64>,
    /// Whether these are since the Unix epoch, and not since the start of the process.
    pub is_unix: bool,
    /// Nothing after this time since the start of the process is read.
    pub last_ns: Option<u64>,
}

/// Sockets followed, and shown as one layer.
#[derive(Debug)]
enum View {
    Network(Connections<()>, NetworkTrace),
    Request(Connections<Talk>, RequestTrace),
}

/// Records, one after the other, as text.
#[derive(Debug)]
pub struct Tracker {
    view: View,
    window: Window,
    /// Wall-clock time of time 0 of the current epoch, nanoseconds since the Unix epoch.
    zero_unix_ns: u64,
    is_over: bool,
    ended: bool,
}

impl Tracker {
    pub fn new(layer: Layer, options: Options, window: Window) -> Self {
        let view = match layer {
            Layer::Network => View::Network(Connections::with_given(&options.given), NetworkTrace::new(options)),
            Layer::Request => View::Request(Connections::with_given(&options.given), RequestTrace::new(options)),
        };
        Tracker { view, window, zero_unix_ns: 0, is_over: false, ended: false }
    }

    /// Looks at a record; false if it is behind the window, and all that can be shown was.
    pub fn observe(&mut self, record: &impl Record) -> bool {
        let (call, time_ns) = (record.call(), record.time_ns());
        if let (CALL_START, [_, zero_unix_ns]) = (call, record.args()) {
            self.zero_unix_ns = *zero_unix_ns;
        }
        let at = Moment { seq: record.seq(), time_ns, unix_ns: self.zero_unix_ns.saturating_add(time_ns) };
        let Window { from_ns, until_ns, is_unix, last_ns } = self.window;
        let measured = if is_unix { at.unix_ns } else { time_ns };
        if until_ns.is_some_and(|until| measured > until) || last_ns.is_some_and(|last| time_ns > last) {
            self.is_over = true;
            return false;
        }
        let is_shown = from_ns.is_none_or(|from| measured >= from);
        match &mut self.view {
            View::Network(connections, trace) => {
                trace.begin(at, is_shown);
                connections.observe(record, trace);
            }
            View::Request(connections, trace) => {
                trace.begin(at, is_shown);
                connections.observe(record, trace);
            }
        }
        if call == CALL_END {
            self.ended = true;
            self.close(Close::ProcessEnded);
        }
        true
    }

    fn close(&mut self, close: Close) {
        if let View::Request(connections, trace) = &mut self.view {
            trace.close(connections, close);
        }
    }

    /// Whether nothing of what there is to take may change.
    pub fn is_settled(&self) -> bool {
        match &self.view {
            View::Network(_, trace) => trace.is_settled(),
            View::Request(..) => true,
        }
    }

    /// Length of what there is to take, bytes.
    pub fn ready_bytes(&self) -> usize {
        match &self.view {
            View::Network(_, trace) => trace.ready_bytes(),
            View::Request(_, trace) => trace.ready_bytes(),
        }
    }

    /// Takes what was written so far.
    pub fn take(&mut self) -> String {
        match &mut self.view {
            View::Network(_, trace) => trace.take(),
            View::Request(_, trace) => trace.take(),
        }
    }

    /// What is unfinished, as it is: no more records come.
    pub fn finish(&mut self) -> String {
        self.close(Close::TraceEnded);
        self.take()
    }

    /// What conversations keep at the moment, bytes.
    pub fn kept_bytes(&self) -> usize {
        match &self.view {
            View::Network(..) => 0,
            View::Request(_, trace) => trace.kept_bytes(),
        }
    }

    /// What the reader should know of what the trace doesn't show.
    pub fn notes(&self) -> Vec<String> {
        let (missing, not_followed) = match &self.view {
            View::Network(connections, trace) => (trace.missing(), connections.not_followed()),
            View::Request(connections, trace) => (trace.missing(), connections.not_followed()),
        };
        let mut notes = Vec::new();
        if missing > 0 {
            notes.push(format!(
                "the log has digests in place of what was sent {missing} times, as it was recorded with \
                 record.output = digest"
            ));
        }
        if not_followed > 0 {
            notes.push(format!(
                "{not_followed} sockets were not followed: their descriptors were {DESCRIPTORS_MAX} or higher"
            ));
        }
        notes
    }
}

/// A log's traffic as text, in batches; also of a log that is still being written.
#[derive(Debug)]
pub struct Traffic {
    reader: LogReader,
    tracker: Tracker,
    /// Where the log is damaged, once the reader got there.
    damage: Option<LogError>,
}

impl Traffic {
    /// Opens a log at its first record.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn open(
        source: impl Into<LogSource>,
        layer: Layer,
        options: Options,
        window: Window,
    ) -> Result<Self, LogError> {
        let mut reader = LogReader::open(source)?;
        let calls: Vec<u16> = CALLS.iter().map(|call| *call as u16).chain([CALL_START, CALL_END]).collect();
        reader.set_filter(Some(BlockFilter::of_calls(&calls)));
        Ok(Traffic { reader, tracker: Tracker::new(layer, options, window), damage: None })
    }

    /// What comes next, until about `bytes_max` bytes are there; it may be empty. Nothing at the end of what there is
    /// now, or at the window's end.
    ///
    /// # Errors
    /// [`LogError`] where the log is damaged; what is before it was returned.
    pub fn read(&mut self, bytes_max: usize) -> Result<Option<String>, LogError> {
        let mut records = 0;
        while !self.tracker.is_over && self.damage.is_none() {
            match self.reader.next() {
                Ok(Some(record)) => {
                    self.tracker.observe(&record);
                }
                Ok(None) => break,
                Err(error) => self.damage = Some(error),
            }
            records += 1;
            let is_due = records >= BATCH_RECORDS || self.tracker.ready_bytes() >= bytes_max;
            if is_due && (self.tracker.is_settled() || records >= 2 * BATCH_RECORDS) {
                return Ok(Some(self.tracker.take()));
            }
        }
        let text = self.tracker.take();
        match &self.damage {
            _ if !text.is_empty() => Ok(Some(text)),
            Some(error) => Err(error.clone()),
            None => Ok(None),
        }
    }

    /// What is unfinished, as it is: nothing more will be read.
    pub fn finish(&mut self) -> String {
        self.tracker.finish()
    }

    /// Whether the record of the process's end was passed.
    pub fn ended(&self) -> bool {
        self.tracker.ended
    }

    /// Whether the window's end was passed: more records make no difference.
    pub fn is_over(&self) -> bool {
        self.tracker.is_over
    }

    /// What the reader should know of what the trace doesn't show.
    pub fn notes(&self) -> Vec<String> {
        self.tracker.notes()
    }
}
