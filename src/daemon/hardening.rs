//! What a running instance keeps of root's rights: as much as its configuration needs (`hardening`).
//!
//! Taken once, at the start, for none of it can be had back; a later configuration that needs more is told
//! what it will miss until headgate is stopped and started.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::control;
use super::upgrade::{self, Sources};
use crate::config::{Config, FindProcess};
use crate::platform::confinement::{Capability, Confined, Needs};
use crate::platform::room;
use crate::rules::set::Behavior;
use crate::tunnel::admission;

/// Where the switches of the network are, and what new processes open for nothing.
const ALWAYS_WRITABLE: [&str; 2] = ["/proc/sys/net", "/dev/null"];

/// Where the loader of a dynamically linked program and its libraries are.
const LOADERS: [&str; 4] = ["/lib", "/lib64", "/usr/lib", "/usr/lib64"];

/// What was given up at the start.
pub struct Hardened {
    confined: Option<Confined>,
    directory: PathBuf,
}

impl Hardened {
    /// Gives up what `config` does not need. To be called before there is a second thread.
    pub fn start(config: &Config, directory: &Path) -> Self {
        // While we still may.
        room::raise_descriptors(admission::descriptors_wanted(
            config.general.max_connections,
        ));
        let confined = config.general.hardening.then(|| {
            let needs = needs(config, directory);
            for place in needs.writable.iter().chain(&needs.sockets) {
                // A folder must be there to be allowed; that it cannot be made, its first user will say.
                let _later = fs::create_dir_all(place);
            }
            Confined::to(&needs)
        });
        Self {
            confined,
            directory: directory.to_owned(),
        }
    }

    /// Says what was given up.
    pub fn tell(&self) {
        match &self.confined {
            Some(confined) => log::info!("hardening: {confined}"),
            None => log::info!("hardening is off: every right that it was started with is kept"),
        }
    }

    /// Says what `config` will miss of what was given up for an earlier one.
    pub fn follow(&self, config: &Config) {
        let Some(confined) = &self.confined else {
            return;
        };
        let after = "until headgate is stopped and started";
        let wanted = needs(config, &self.directory);
        for path in wanted.writable.iter().chain(&wanted.sockets) {
            if !confined.may_write(path) {
                log::warn!(
                    "hardening: nothing can be made in {} {after}",
                    path.display()
                );
            }
        }
        let looks = wanted.capabilities.contains(&Capability::SysPtrace);
        if looks && confined.has(Capability::NetAdmin) && !confined.has(Capability::SysPtrace) {
            log::warn!("hardening: rules do not see programs {after}");
        }
        if !config.general.hardening {
            log::warn!("hardening stays on {after}");
        }
    }

    /// What a successor in this process has to know.
    pub fn confined(&self) -> Option<&Confined> {
        self.confined.as_ref()
    }
}

fn needs(config: &Config, directory: &Path) -> Needs {
    let mut capabilities = vec![
        Capability::NetAdmin,
        Capability::NetRaw,
        Capability::NetBindService,
    ];
    let other_processes = looks_for_programs(config);
    if other_processes {
        capabilities.extend([Capability::SysPtrace, Capability::DacReadSearch]);
    }
    let writable = writable(config, directory);
    let own = nix::unistd::geteuid().as_raw();
    let ours = |path: &PathBuf| fs::metadata(path).map_or(true, |found| found.uid() == own);
    if !writable.iter().all(ours) {
        capabilities.push(Capability::DacOverride);
    }
    let mut sockets = vec![std::env::temp_dir()];
    let unix = config.controller.unix.as_ref();
    if let Some(parent) = unix.and_then(|path| Some(directory.join(path).parent()?.to_owned())) {
        sockets.push(parent);
    }
    let mut executable: Vec<PathBuf> = LOADERS.map(PathBuf::from).into();
    let program = std::env::current_exe();
    if let Some(parent) = program.as_deref().ok().and_then(Path::parent) {
        executable.push(parent.to_owned());
    }
    Needs {
        capabilities,
        writable,
        sockets,
        executable,
        other_processes,
    }
}

/// Where files are written: the working directory, in which all lists are kept, and whatever lies elsewhere.
fn writable(config: &Config, directory: &Path) -> Vec<PathBuf> {
    let mut places = vec![directory.to_owned()];
    places.extend(ALWAYS_WRITABLE.map(PathBuf::from));
    places.extend(control::safe_paths());
    places.extend(Sources::new(&config.controller, directory).places());
    // The configuration may not ask for upgrades any more while one has yet to prove itself.
    if let Ok(program) = std::env::current_exe()
        && upgrade::is_on_trial(&program)
    {
        places.extend(program.parent().map(Path::to_owned));
    }
    places
}

/// Whether a rule asks for the program behind a connection, or may with the next download.
fn looks_for_programs(config: &Config) -> bool {
    let mut lines = config.rules.iter();
    let mut lists = config.sub_rules.iter();
    let mut sets = config.rule_providers.iter();
    config.general.find_process != FindProcess::Off
        && (lines.any(|line| line.matcher().needs().process)
            || lists.any(|(_, rules)| rules.needs().process)
            || sets.any(|set| set.set.behavior() == Behavior::Classical))
}
