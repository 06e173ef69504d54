//! The driver of the log: writes down once a second what changed, or before it is promised.
//!
//! Writing is done on the broker's thread, as one call; waiting for the medium is not, unless somebody
//! wants to be sure before an acknowledgement is sent (`persistence-sync: strict`). A log that cannot
//! be written is told once and begun anew at the next occasion.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::broker::Extent;
use super::driver::Driver;
use super::options::{Options, Sync};
use super::seconds;
use super::store::file::Log;
use crate::platform::blocking::blocking;

/// How often what changed is written.
const EVERY: Duration = Duration::from_secs(1);

/// The log and what is to be done with it.
#[derive(Default)]
pub(super) struct Keeper {
    log: RefCell<Option<Log>>,
    sync: Cell<Sync>,
    broken: Cell<bool>,
    woken: Notify,
}

impl Keeper {
    /// There may be something to write.
    pub(super) fn wake(&self) {
        self.woken.notify_one();
    }
}

impl Driver {
    /// Restores the broker from a log, and keeps it from here on.
    pub(super) fn keep(&self, mut log: Log, frames: &[u8], options: &Options) {
        let valid = self.with(|broker, now| {
            broker.keep_journal(seconds(options.retained_after));
            broker.restore(now, frames)
        });
        if valid < frames.len() {
            let torn = frames.len() - valid;
            log::warn!("mqtt: {torn} bytes at the end of the log are torn, and left out");
        }
        if let Err(error) = log.keep(valid) {
            log::error!("mqtt: the log: {error}");
        }
        self.keeper.sync.set(options.sync);
        *self.keeper.log.borrow_mut() = Some(log);
    }

    /// Before something is sent: what it promises is written, and on the medium where that is wanted.
    pub(super) fn promise(&self) {
        if self.keeper.sync.get() == Sync::Strict {
            let now = self.now();
            if self.broker.borrow().has_journal(now) {
                let durable = self.broker.borrow_mut().take_durable();
                self.write_down(Extent::Due, durable);
            }
        }
    }

    /// Writes all that the log lacks, because the broker stops.
    pub(super) fn write_all_down(&self) {
        self.write_down(Extent::All, self.keeper.sync.get() != Sync::Never);
    }

    fn write_down(&self, extent: Extent, sync: bool) {
        let mut log = self.keeper.log.borrow_mut();
        let Some(log) = log.as_mut() else {
            return;
        };
        let (now, mut frames) = (self.now(), Vec::new());
        let anew = self.keeper.broken.get() || log.has_grown();
        let mut broker = self.broker.borrow_mut();
        if anew {
            broker.rewrite_journal(now, &mut frames);
        } else {
            broker.write_journal(now, extent, &mut frames);
        }
        drop(broker);
        if frames.is_empty() && !anew {
            return;
        }
        let written = if anew {
            log.rewrite(&frames)
        } else {
            log.append(&frames)
                .and_then(|()| if sync { log.sync() } else { Ok(()) })
        };
        match written {
            Ok(()) => self.keeper.broken.set(false),
            Err(error) => {
                if !self.keeper.broken.replace(true) {
                    log::error!("mqtt: the log cannot be written: {error}");
                }
            }
        }
    }
}

/// Writes down what changed, at most once a second.
pub(super) async fn write_down_forever(driver: Rc<Driver>) {
    loop {
        let now = driver.now();
        let due = driver.broker.borrow().journal_due();
        if !driver.broker.borrow().has_journal(now) && !driver.keeper.broken.get() {
            let wait = Duration::from_millis(due.saturating_sub(now).clamp(1000, 3_600_000));
            let _woken = timeout(wait, driver.keeper.woken.notified()).await;
        }
        sleep(EVERY).await;
        if !driver.broker.borrow().has_journal(driver.now()) && !driver.keeper.broken.get() {
            continue;
        }
        driver.write_down(Extent::Due, false);
        let log = driver.keeper.log.borrow().as_ref().map(Log::handle);
        if driver.keeper.sync.get() != Sync::Never
            && let Some(Ok(file)) = log
        {
            let synced = blocking(move || file.sync_data()).await;
            if let Ok(Err(error)) = synced {
                log::error!("mqtt: the log: {error}");
            }
        }
    }
}
