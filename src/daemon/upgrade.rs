//! `POST /upgrade` and `/upgrade/ui`: another program in this one's place, other pages in the dashboard's.
//!
//! Only from where the configuration file said at the start or at the last SIGHUP: what a caller of the API may
//! change gives no other source (users.md S8). The program's SHA-256 stands in the file too. Before it takes the
//! place of the old one it is run once, to say its version and to check the configuration; then the old one
//! stays beside it, until the new one is ready. A new one that ended before that is replaced by the old one
//! when it is started again, by whoever starts it.

use std::fs::{self, File, Permissions};
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::Failure;
use super::providers::{AGAIN_FIRST, AGAIN_LAST};
use crate::controllers::options::{Options, Program};
use crate::platform::blocking::blocking;
use crate::platform::clock;
use crate::provider::file::{Part, with_suffix};
use crate::provider::http::{self, Connect, Request};
use crate::provider::pages::{self, Place};
use crate::provider::url::Url;

/// What the server is told.
const AGENT: &str = concat!("headgate/", env!("CARGO_PKG_VERSION"));

/// Bytes of a program, and of an archive of pages.
const PROGRAM_BYTES_MAX: u64 = 32 << 20;
const PAGES_BYTES_MAX: u64 = 16 << 20;

/// How long a download may take.
const DOWNLOAD_TIME: Duration = Duration::from_secs(60);

/// How long a new program may take to say its version, or to check the configuration.
const TRIAL_TIME: Duration = Duration::from_secs(15);

/// How often it is looked whether it has.
const TRIAL_STEP: Duration = Duration::from_millis(50);

/// From where both may come.
#[derive(Clone, Default)]
pub struct Sources {
    /// The program.
    pub program: Option<Program>,
    /// The archive of pages, and the directory that is theirs.
    pub pages: Option<(Url, PathBuf)>,
}

impl Sources {
    /// As the controller's options say; paths are relative to `directory`.
    pub fn new(options: &Options, directory: &Path) -> Self {
        let pages = options.ui.as_ref().and_then(|ui| {
            let place = directory.join(&ui.directory);
            let place = match &ui.name {
                Some(name) => place.join(&**name),
                None => place,
            };
            Some((ui.url.clone()?, place))
        });
        Self {
            program: options.program.clone(),
            pages,
        }
    }

    /// Puts back the pages that a crash during their replacement left aside.
    pub fn recover(&self) {
        let recovered = self.pages.iter().map(|(_, place)| pages::recover(place));
        for error in recovered.filter_map(Result::err) {
            log::warn!("external-ui: {error}");
        }
    }

    /// The directories that replacements are made in.
    pub fn places(&self) -> impl Iterator<Item = PathBuf> {
        let pages = self.pages.as_ref().map(|(_, place)| place.clone());
        let program = self.program.as_ref().and(std::env::current_exe().ok());
        let parent = |path: PathBuf| Some(path.parent()?.to_owned());
        [pages, program].into_iter().flatten().filter_map(parent)
    }
}

/// What an instance may replace.
pub struct Upgrades {
    /// Snapshot, written by the supervisor when it opens the gate: no call of the API changes it.
    sources: RwLock<Sources>,
    /// Held by whoever replaces something.
    turn: Arc<Mutex<()>>,
    /// The program's own file.
    program: PathBuf,
}

impl Upgrades {
    /// Nothing yet.
    ///
    /// # Errors
    /// `/proc` is not there.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            sources: RwLock::default(),
            turn: Arc::default(),
            program: std::env::current_exe()?,
        })
    }

    /// The program's own file.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// From where they come now.
    pub fn sources(&self) -> Sources {
        let sources = self.sources.read();
        sources.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From where they come from now on.
    pub fn come_from(&self, sources: Sources) {
        let known = self.sources.write();
        *known.unwrap_or_else(PoisonError::into_inner) = sources;
    }

    /// The right to replace something; `None`: somebody has it.
    pub fn turn(&self) -> Option<OwnedMutexGuard<()>> {
        Arc::clone(&self.turn).try_lock_owned().ok()
    }
}

async fn download(
    url: &Url,
    way: &dyn Connect,
    place: &Path,
    size_max: u64,
) -> Result<Part, Failure> {
    let request = Request {
        url,
        proxy: None,
        agent: AGENT,
        fields: &[],
        etag: None,
        size_max,
    };
    let mut part = Part::begin(place)?;
    let mut sink = |piece: &[u8]| part.write(piece);
    let got = http::get(&request, way, &mut sink);
    let got = tokio::time::timeout(DOWNLOAD_TIME, got).await;
    got.map_err(|_| "the download takes too long")??;
    Ok(part)
}

/// Puts the newest pages in the place of those that are there, or only where there are none.
///
/// # Errors
/// Why not; what was there is there then.
pub async fn fetch_pages(
    (url, directory): (Url, PathBuf),
    way: &dyn Connect,
    place: Place,
) -> Result<(), Failure> {
    let archive = with_suffix(&directory, ".archive");
    let part = download(&url, way, &archive, PAGES_BYTES_MAX).await?;
    let replacing = blocking(move || {
        pages::put(&directory, &mut part.read()?, place)?;
        Ok::<_, Failure>(())
    });
    replacing.await?
}

/// Fetches pages that were never there, in its own time: tried again until they are, later each time.
pub async fn fetch_missing_pages(upgrades: Arc<Upgrades>, way: Arc<dyn Connect>) {
    let mut wait = AGAIN_FIRST;
    let missing = |source: &(Url, PathBuf)| pages::are_missing(&source.1);
    while let Some(source) = upgrades.sources().pages.filter(missing) {
        if let Some(_turn) = upgrades.turn() {
            let shown = source.1.display().to_string();
            match fetch_pages(source, &*way, Place::Empty).await {
                Ok(()) => return log::info!("external-ui: fetched, {shown} was empty"),
                // Once: it goes on for as long as there is no way out.
                Err(error) if wait == AGAIN_FIRST => log::warn!("external-ui: {error}"),
                Err(error) => log::debug!("external-ui: {error}"),
            }
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(AGAIN_LAST);
    }
}

/// Puts the program that the configuration names in the place of `own`; it has to be restarted then.
///
/// # Errors
/// Why not; nothing has changed then.
pub async fn replace_program(
    source: Program,
    way: &dyn Connect,
    own: PathBuf,
    arguments: Vec<PathBuf>,
) -> Result<(), Failure> {
    let running = own.clone();
    let digest_of_own = blocking(move || digest(File::open(running)?));
    if digest_of_own.await?? == source.sha256 {
        return Err("already the newest version".into());
    }
    let next = with_suffix(&own, ".next");
    let part = download(&source.url, way, &next, PROGRAM_BYTES_MAX).await?;
    let replacing = blocking(move || {
        if digest(part.read()?)? != source.sha256 {
            return Err(Failure::from(
                "its SHA-256 is not the one of upgrade.sha256",
            ));
        }
        // Closed by this: what is open for writing cannot be run.
        part.commit(&next)?;
        let done = put_in_place(&next, &own, &arguments);
        if done.is_err() {
            remove(&next)?;
        }
        done
    });
    replacing.await?
}

/// Tries a program out, and keeps the old one beside it.
fn put_in_place(next: &Path, own: &Path, arguments: &[PathBuf]) -> Result<(), Failure> {
    fs::set_permissions(next, Permissions::from_mode(0o755))?;
    try_out(next, &["version".into()])?;
    try_out(next, arguments)?;
    keep_old(own)?;
    Ok(fs::rename(next, own)?)
}

fn digest(mut file: File) -> io::Result<[u8; 32]> {
    let mut sum = Sha256::new();
    let mut piece = vec![0; 64 * 1024];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(sum.finalize().into()),
            read => sum.update(piece.get(..read).unwrap_or_default()),
        }
    }
}

/// Runs a program to its end, which must be a good one.
fn try_out(program: &Path, arguments: &[PathBuf]) -> Result<(), Failure> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn()?;
    let ended = end_of(&mut child);
    if !matches!(ended, Ok(Some(_))) {
        // Whatever went wrong, it neither runs on nor stays behind as a zombie.
        let _gone = child.kill();
        let _status = child.wait();
    }
    match ended? {
        Some(status) if status.success() => Ok(()),
        Some(status) => Err(format!("the new program refuses: {status}").into()),
        None => Err("the new program does not answer".into()),
    }
}

/// How a trial ends; `None`: not within its time.
fn end_of(child: &mut Child) -> io::Result<Option<ExitStatus>> {
    let began = clock::now();
    while clock::now().duration_since(began) < TRIAL_TIME {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        thread::sleep(TRIAL_STEP);
    }
    Ok(None)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn keep_old(program: &Path) -> io::Result<()> {
    let old = with_suffix(program, ".old");
    remove(&old)?;
    remove(&with_suffix(program, ".trial"))?;
    fs::hard_link(program, old)
}

/// At the start: whether the program is one that has already been started and did not become ready. The old one
/// is back in its place then, and is the one to run.
///
/// # Errors
/// What the file system says.
pub fn was_in_vain(program: &Path) -> io::Result<bool> {
    let (old, trial) = (with_suffix(program, ".old"), with_suffix(program, ".trial"));
    if !old.exists() {
        return Ok(false);
    }
    if !trial.exists() {
        File::create(trial)?;
        return Ok(false);
    }
    fs::rename(old, program)?;
    remove(&trial)?;
    Ok(true)
}

/// Whether the one before it still lies beside a program, to be taken away once it has proven itself.
pub fn is_on_trial(program: &Path) -> bool {
    with_suffix(program, ".old").exists()
}

/// It is ready: the old one is not needed any more.
pub fn has_proven_itself(program: &Path) {
    for leftover in [".old", ".trial"] {
        let path = with_suffix(program, leftover);
        if let Err(error) = remove(&path) {
            log::warn!("{}: {error}", path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::testing;

    #[test]
    fn a_program_that_is_started_twice_without_becoming_ready_gives_way_to_the_old_one() {
        let place = testing::Place::new("upgrade-trial");
        let program = place.0.join("headgate");
        fs::write(&program, "old").unwrap();
        assert!(!was_in_vain(&program).unwrap());
        keep_old(&program).unwrap();
        fs::write(place.0.join("new"), "new").unwrap();
        fs::rename(place.0.join("new"), &program).unwrap();
        assert!(!was_in_vain(&program).unwrap());
        assert!(was_in_vain(&program).unwrap());
        assert_eq!(fs::read(&program).unwrap(), b"old");
        assert!(!was_in_vain(&program).unwrap());
        assert_eq!(fs::read_dir(&place.0).unwrap().count(), 1);
    }

    #[test]
    fn a_program_that_becomes_ready_stays() {
        let place = testing::Place::new("upgrade-ready");
        let program = place.0.join("headgate");
        fs::write(&program, "1").unwrap();
        keep_old(&program).unwrap();
        assert!(!was_in_vain(&program).unwrap());
        has_proven_itself(&program);
        assert!(!was_in_vain(&program).unwrap());
        assert_eq!(fs::read_dir(&place.0).unwrap().count(), 1);
    }

    #[test]
    fn what_fails_or_cannot_run_is_no_new_program() {
        assert!(try_out(Path::new("/bin/true"), &[]).is_ok());
        assert!(try_out(Path::new("/bin/false"), &[]).is_err());
        assert!(try_out(Path::new("/etc/hostname"), &[]).is_err());
    }

    #[test]
    fn digests_are_sha_256() {
        let place = testing::Place::new("upgrade-digest");
        let path = place.0.join("abc");
        fs::write(&path, "abc").unwrap();
        let sum = digest(File::open(path).unwrap()).unwrap();
        assert_eq!(sum[..4], [0xba, 0x78, 0x16, 0xbf]);
    }
}
