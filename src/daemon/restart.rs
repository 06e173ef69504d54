//! Running the program anew in the same process, as whoever watches it sees it: no supervisor of
//! processes has to notice, and none can fail to.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};

use crate::platform::confinement::Confined;

/// How an instance ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It was told to stop.
    Stop,
    /// It was told to start anew.
    Restart,
}

/// The program's own file.
pub struct Program(PathBuf);

impl Program {
    /// Of this process. To be asked early: another file may take the name later, and is then the one
    /// to run.
    ///
    /// # Errors
    /// `/proc` is not there.
    pub fn current() -> io::Result<Self> {
        std::env::current_exe().map(Self)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Becomes that program with this process's arguments and environment, and with what it was confined to.
    /// Comes back only with the reason why not.
    pub fn run(&self, confined: Option<&Confined>) -> io::Error {
        std::process::Command::new(&self.0)
            .args(std::env::args_os().skip(1))
            .envs(confined.and_then(Confined::mark))
            .exec()
    }
}
