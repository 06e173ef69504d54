//! `external-ui`: the files of a dashboard under `/ui/`, without a secret, since a browser that opens
//! a page has none to show; what the page then asks of the API needs it.
//!
//! A path is opened beneath the directory by the kernel (`openat2`), so that neither `..` nor a link
//! leads out of it, whatever happens meanwhile. Files go out piece by piece. Those under a directory
//! of build products have names made of their content and are kept by browsers for good; the others
//! are asked for each time and usually not changed (RFC 9110 section 13).

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

use super::connection::Connection;
use crate::controllers::http::percent_decode;
use crate::platform::blocking::blocking;

/// Where the files are.
const PREFIX: &str = "/ui";

/// Bytes of a file that are held at a time.
const PIECE_BYTES: usize = 32 * 1024;

/// Directories that web builds put files with content hashes into.
const HASHED: [&str; 3] = ["assets", "_nuxt", "_fonts"];

/// Types by ending.
const TYPES: [(&str, &str); 20] = [
    ("html", "text/html; charset=utf-8"),
    ("js", "text/javascript; charset=utf-8"),
    ("mjs", "text/javascript; charset=utf-8"),
    ("css", "text/css; charset=utf-8"),
    ("json", "application/json"),
    ("map", "application/json"),
    ("webmanifest", "application/manifest+json"),
    ("svg", "image/svg+xml"),
    ("png", "image/png"),
    ("ico", "image/x-icon"),
    ("jpg", "image/jpeg"),
    ("jpeg", "image/jpeg"),
    ("gif", "image/gif"),
    ("webp", "image/webp"),
    ("avif", "image/avif"),
    ("woff", "font/woff"),
    ("woff2", "font/woff2"),
    ("ttf", "font/ttf"),
    ("wasm", "application/wasm"),
    ("txt", "text/plain; charset=utf-8"),
];

/// The files of the dashboard.
pub(super) struct Ui {
    directory: PathBuf,
    /// Where `/ui/` itself leads.
    start: Option<String>,
}

/// What a path under `/ui` leads to.
pub(super) enum Found {
    /// A file, and its header fields.
    File(Page),
    /// To a directory without its slash: go there.
    Moved(String),
    /// To nothing.
    Nothing,
}

/// An open file.
pub(super) struct Page {
    file: File,
    /// Its size.
    pub(super) bytes: u64,
    /// Type, cache, entity tag: header fields, each with its line end.
    pub(super) fields: String,
    /// What distinguishes this content (RFC 9110 section 8.8.3).
    pub(super) etag: String,
}

impl Ui {
    /// The files in `directory`; beginning with the directory `name` in it.
    pub(super) fn new(directory: PathBuf, name: Option<&str>) -> Self {
        Self {
            directory,
            start: name.map(|name| format!("{name}/")),
        }
    }

    /// Whether `path` is the dashboard's to answer.
    pub(super) fn has(path: &str) -> bool {
        path.strip_prefix(PREFIX)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// Opens what `path` names, away from the runtime.
    pub(super) async fn find(&self, path: &str) -> Found {
        let last = path.rsplit('/').next().unwrap_or_default();
        let inside = path.strip_prefix(PREFIX).unwrap_or_default();
        let Some(inside) = inside.strip_prefix('/') else {
            // Relative: a reverse proxy may have put us under a path of its own.
            return Found::Moved("ui/".to_owned());
        };
        if let (Some(start), "") = (&self.start, inside) {
            return Found::Moved(start.clone());
        }
        let Some(decoded) = percent_decode(inside).map(String::from) else {
            return Found::Nothing;
        };
        let (directory, moved) = (self.directory.clone(), format!("{last}/"));
        let opening = blocking(move || open(&directory, &decoded));
        match opening.await {
            Ok(Ok(Some(page))) => Found::File(page),
            Ok(Ok(None)) => Found::Moved(moved),
            Ok(Err(_)) | Err(_) => Found::Nothing,
        }
    }
}

impl Page {
    /// Sends the content, which begins a connection's answer body.
    pub(super) async fn send(self, connection: &mut Connection) -> io::Result<()> {
        let (mut file, mut left) = (self.file, self.bytes);
        while left > 0 {
            let most = left.min(u64::try_from(PIECE_BYTES).unwrap_or(left));
            let reading = blocking(move || {
                let mut piece = Vec::with_capacity(usize::try_from(most).unwrap_or(PIECE_BYTES));
                (&mut file).take(most).read_to_end(&mut piece)?;
                Ok::<_, io::Error>((piece, file))
            });
            let piece;
            (piece, file) = reading.await??;
            if piece.is_empty() {
                // Cut meanwhile: its length was promised.
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            left -= u64::try_from(piece.len()).unwrap_or(left);
            connection.write(&piece).await?;
        }
        Ok(())
    }
}

/// The file at `path` in `directory`; of a directory its `index.html`, and `None` when its slash is
/// missing.
fn open(directory: &Path, path: &str) -> io::Result<Option<Page>> {
    let root = File::open(directory)?;
    let mut name = PathBuf::from(match path {
        "" => ".",
        path => path,
    });
    let mut file = open_beneath(&root, &name)?;
    if file.metadata()?.is_dir() {
        if !path.is_empty() && !path.ends_with('/') {
            return Ok(None);
        }
        name.push("index.html");
        file = open_beneath(&root, &name)?;
    }
    let metadata = file.metadata()?;
    if !metadata.is_file() || path.ends_with('/') && name.file_name() != Some("index.html".as_ref())
    {
        return Err(io::ErrorKind::NotFound.into());
    }
    let ending = name.extension().and_then(|ending| ending.to_str());
    let ending = ending.unwrap_or_default().to_ascii_lowercase();
    let known = TYPES.iter().find(|(known, _)| *known == ending);
    let content_type = known.map_or("application/octet-stream", |(_, kind)| kind);
    let is_hashed = name.parent().is_some_and(|parent| {
        let mut parts = parent.components();
        parts.any(|part| HASHED.iter().any(|known| part.as_os_str() == *known))
    });
    let cache = if is_hashed {
        "public, max-age=31536000, immutable"
    } else {
        "no-cache"
    };
    let etag = format!(
        "\"{:x}-{:x}-{:x}\"",
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.len()
    );
    let fields = format!(
        "Content-Type: {content_type}\r\nCache-Control: {cache}\r\nETag: {etag}\r\n\
         X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n"
    );
    Ok(Some(Page {
        file,
        bytes: metadata.len(),
        fields,
        etag,
    }))
}

/// Opens for reading, never through anything that is not beneath `root`, and without waiting for
/// whatever else than a file may stand there.
fn open_beneath(root: &File, path: &Path) -> io::Result<File> {
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOCTTY)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let opened = openat2(root.as_fd(), path, how);
    opened.map(File::from).map_err(|error: Errno| error.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_below_the_prefix_are_the_dashboards() {
        for path in ["/ui", "/ui/", "/ui/x/y"] {
            assert!(Ui::has(path), "{path}");
        }
        for path in ["/uix", "/", "/proxies/ui", "/UI/", ""] {
            assert!(!Ui::has(path), "{path}");
        }
    }

    /// A folder with dashboards in `ui`, links that lead out of it, and a secret beside it.
    fn dashboards(name: &str) -> PathBuf {
        let place = std::env::temp_dir().join(format!("headgate-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&place);
        let ui = place.join("ui");
        std::fs::create_dir_all(ui.join("assets")).unwrap();
        std::fs::write(place.join("secret.txt"), "s").unwrap();
        std::fs::write(ui.join("index.html"), "i").unwrap();
        std::fs::write(ui.join("assets/a-1234.js"), "a").unwrap();
        std::os::unix::fs::symlink("../secret.txt", ui.join("link")).unwrap();
        std::os::unix::fs::symlink("/etc", ui.join("etc")).unwrap();
        std::os::unix::fs::symlink("index.html", ui.join("inner")).unwrap();
        place
    }

    #[test]
    fn hundreds_of_ways_out_lead_nowhere() {
        let place = dashboards("ui-out");
        let found = |path: &str| open(&place.join("ui"), path);
        let mut tried = 0;
        for target in [
            "secret.txt",
            "etc/passwd",
            "proc/self/environ",
            "proc/self/fd/0",
        ] {
            for start in [
                "",
                "/",
                "//",
                "./",
                "assets/",
                "assets/./",
                "etc/",
                "link/",
                "inner/",
            ] {
                for up in [
                    "",
                    "../",
                    "..//",
                    "./../",
                    ".././",
                    "assets/../../",
                    "/../",
                    "..\\",
                ] {
                    for depth in 1..=3 {
                        let path = format!("{start}{}{target}", up.repeat(depth));
                        assert!(found(&path).is_err(), "{path:?}");
                        assert!(found(&format!("{path}\0.html")).is_err(), "{path:?}");
                        tried += 2;
                    }
                }
            }
        }
        assert!(tried > 500);
        std::fs::remove_dir_all(place).unwrap();
    }

    #[test]
    fn nothing_outside_the_directory_is_opened() {
        let place = dashboards("ui");
        let ui = place.join("ui");
        let found = |path: &str| open(&ui, path).map(|page| page.map(|page| page.fields));
        for path in [
            "../secret.txt",
            "assets/../../secret.txt",
            "/etc/passwd",
            "link",
            "etc/passwd",
            "index.html/",
            "index.html/x",
            "a\0b",
            "assets/",
            "missing",
        ] {
            assert!(found(path).is_err(), "{path:?}");
        }
        assert!(found("assets").unwrap().is_none());
        let html = found("").unwrap().unwrap();
        assert!(
            html.starts_with("Content-Type: text/html; charset=utf-8\r\nCache-Control: no-cache")
        );
        assert!(found("inner").unwrap().is_some());
        assert!(found("assets/../index.html").unwrap().is_some());
        let script = found("assets/a-1234.js").unwrap().unwrap();
        assert!(script.contains("text/javascript") && script.contains("immutable"));
        std::fs::remove_dir_all(place).unwrap();
    }
}
