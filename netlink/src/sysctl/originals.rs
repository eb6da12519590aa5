//! What settings held before they were changed, kept on disk, so that an uninstall can put them back. Several
//! programs of a machine share one folder: a file a setting, written whole before the setting is, and only by
//! whoever changes it. No lock is needed: whoever finds a setting as it should be writes nothing.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::{path, read, write};

/// The folder's name, below the one of all networks' reservations of addresses. No network's name begins so.
const FOLDER: &str = ".settings";
/// Tells one boot from another: settings do not outlive one.
const BOOT: &str = "kernel/random/boot_id";

/// Where is kept what settings held before; by default nowhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Originals {
    folder: Option<PathBuf>,
}

/// What became of a setting that is to be as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restored {
    /// It has its value of before.
    Done,
    /// Somebody else has changed it since: it stays.
    Foreign,
    /// The machine or the interface is another one by now: there is nothing to put back.
    Stale,
}

/// A setting as it was noted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Original {
    /// Its path below /proc/sys.
    pub name: String,
    /// What it held.
    pub before: String,
    /// What it was changed to.
    pub after: String,
    boot: String,
}

impl Originals {
    /// In the folder of all networks' reservations (`/var/lib/cni/networks`).
    pub fn below(data_dir: &Path) -> Originals {
        Originals::at(Some(data_dir.join(FOLDER)))
    }

    /// In that folder, which is made when there is something to keep; nowhere without one.
    pub fn at(folder: Option<PathBuf>) -> Originals {
        Originals { folder }
    }

    /// As [`super::ensure`], and keeps what the setting held.
    ///
    /// # Errors
    /// Where the setting cannot be read or written, or what it held cannot be kept; then it is as it was.
    pub fn ensure(&self, name: &str, value: &str) -> io::Result<bool> {
        let before = read(name)?;
        if before == value {
            return Ok(false);
        }
        self.note(name, &before, value)?;
        write(name, value)?;
        Ok(true)
    }

    fn note(&self, name: &str, before: &str, after: &str) -> io::Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let name = below_proc(name);
        let file = folder.join(name.replace('/', ","));
        let boot = read(BOOT).unwrap_or_default();
        // What one of ours has changed already, another one may change again.
        let held = Original::read(&file).filter(|held| held.boot == boot && held.after == before);
        let before = held.map_or_else(|| before.to_owned(), |held| held.before);
        fs::create_dir_all(folder)?;
        // Neither a reader nor a crash finds half a file.
        let unfinished = folder.join(format!(".{}", std::process::id()));
        fs::write(&unfinished, format!("{name}\n{before}\n{after}\n{boot}\n"))?;
        fs::rename(&unfinished, &file)
    }

    /// All that is kept. Those that switch forwarding come first: they change others.
    pub fn all(&self) -> Vec<Original> {
        let entries = self.folder.iter().flat_map(fs::read_dir).flatten().flatten();
        let mut all: Vec<Original> = entries.filter_map(|entry| Original::read(&entry.path())).collect();
        all.sort_by_key(|it| {
            (!it.name.ends_with("forward") && !it.name.ends_with("forwarding"), it.name.clone())
        });
        all
    }

    /// Puts one back, unless somebody else has changed it since.
    ///
    /// # Errors
    /// Where the setting cannot be written; what it held stays kept.
    pub fn restore(&self, original: &Original) -> io::Result<Restored> {
        let Original { name, before, after, boot } = original;
        let restored = match read(name) {
            _ if *boot != read(BOOT).unwrap_or_default() => Restored::Stale,
            Err(error) if error.kind() == ErrorKind::NotFound => Restored::Stale,
            Err(error) => return Err(error),
            Ok(held) if held == *before => Restored::Done,
            Ok(held) if held != *after => Restored::Foreign,
            Ok(_) => write(name, before).map(|()| Restored::Done)?,
        };
        if let Some(folder) = &self.folder {
            fs::remove_file(folder.join(name.replace('/', ",")))?;
        }
        Ok(restored)
    }

    /// Takes the folder away, where nothing is in it but what a crash left.
    pub fn forget(&self) {
        let Some(folder) = &self.folder else { return };
        if self.all().is_empty() {
            // It may never have been made.
            let _ = fs::remove_dir_all(folder);
        }
    }
}

impl Original {
    fn read(file: &Path) -> Option<Original> {
        let text = fs::read_to_string(file).ok()?;
        let mut lines = text.lines().map(str::to_owned);
        let original = Original {
            name: lines.next()?,
            before: lines.next()?,
            after: lines.next()?,
            boot: lines.next()?,
        };
        // No file of ours leads out of /proc/sys.
        let is_ours = file.file_name()?.to_str()? == original.name.replace('/', ",");
        (is_ours && !original.name.split('/').any(|part| part.is_empty() || part == "..")).then_some(original)
    }
}

/// A setting's path below /proc/sys, however it is written.
fn below_proc(name: &str) -> String {
    let path = path(name);
    path.strip_prefix("/proc/sys").unwrap_or(&path).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn the_first_value_is_kept_until_somebody_else_changes_the_setting() {
        let folder = tempfile::tempdir().unwrap();
        let originals = Originals::below(folder.path());
        originals.note("net.ipv4.conf.eth0/5.rp_filter", "1", "2").unwrap();
        originals.note("net/ipv4/conf/eth0.5/rp_filter", "2", "0").unwrap();
        let [held] = &originals.all()[..] else { panic!("one setting") };
        assert_eq!((held.name.as_str(), held.before.as_str()), ("net/ipv4/conf/eth0.5/rp_filter", "1"));
        assert_eq!(held.after, "0");
        originals.note("net/ipv4/conf/eth0.5/rp_filter", "7", "0").unwrap();
        assert_eq!(originals.all()[0].before, "7", "a person set it to 7 meanwhile");
        assert!(
            Originals::default().note("net/ipv4/ip_forward", "0", "1").is_ok()
                && files(Path::new("/none")).is_empty()
        );
    }

    #[test]
    fn what_is_gone_or_of_another_boot_is_not_put_back() {
        let folder = tempfile::tempdir().unwrap();
        let originals = Originals::below(folder.path());
        originals.note("net/ipv4/conf/gone0/rp_filter", "1", "2").unwrap();
        let held = originals.all().remove(0);
        assert_eq!(originals.restore(&held).unwrap(), Restored::Stale);
        originals.note("kernel/ostype", "Other", "Linux").unwrap();
        let held = Original { boot: "another".to_owned(), ..originals.all().remove(0) };
        assert_eq!(originals.restore(&held).unwrap(), Restored::Stale);
        originals.note("kernel/ostype", "Other", "Something").unwrap();
        let held = originals.all().remove(0);
        assert_eq!(originals.restore(&held).unwrap(), Restored::Foreign);
        assert_eq!(files(&folder.path().join(FOLDER)), Vec::<String>::new());
        originals.forget();
        assert_eq!(files(folder.path()), Vec::<String>::new());
    }

    #[test]
    fn files_that_are_none_of_these_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let originals = Originals::at(Some(folder.path().to_owned()));
        let lines = |name: &str| format!("{name}\n1\n2\nboot\n");
        for (file, text) in [
            ("..,..,etc,passwd", lines("../../etc/passwd")),
            ("net,ipv4", lines("net/ipv6")),
            ("net,ipv4,ip_forward", "net/ipv4/ip_forward\n1\n".to_owned()),
            (".17", lines("net/ipv4/ip_forward")),
            ("net,ipv4,tcp", String::new()),
        ] {
            fs::write(folder.path().join(file), text).unwrap();
        }
        assert_eq!(originals.all(), []);
    }

    #[test]
    fn a_setting_that_has_its_value_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let originals = Originals::below(folder.path());
        let held = read("kernel/ostype").unwrap();
        assert!(!originals.ensure("kernel/ostype", &held).unwrap());
        assert_eq!(files(folder.path()), Vec::<String>::new());
    }
}
