//! A Corefile and what it imports, from files: the only part of this crate that touches anything.

use std::io;
use std::path::{Path, PathBuf};

use crate::{Corefile, Problems, Surroundings};

/// Files and the environment of this process.
#[derive(Clone, Copy, Debug)]
pub struct Disk;

/// Why there is no Corefile.
#[derive(Debug)]
pub enum Unread {
    /// The file cannot be read.
    File(io::Error),
    /// What it says cannot be done.
    Refused(Problems),
}

/// Reads the Corefile at `path`.
///
/// # Errors
/// It cannot be read, or says what is not supported.
pub fn read(path: &Path) -> Result<Corefile, Unread> {
    let text = std::fs::read_to_string(path).map_err(Unread::File)?;
    crate::read(&path.display().to_string(), &text, &Disk).map_err(Unread::Refused)
}

impl Surroundings for Disk {
    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn import(&self, from: &str, pattern: &str) -> Result<Vec<(String, String)>, String> {
        let folder = Path::new(from).parent().unwrap_or(Path::new("."));
        let files = files(&folder.join(pattern))?;
        let read = |path: PathBuf| {
            let text =
                std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            Ok((path.display().to_string(), text))
        };
        files.into_iter().map(read).collect()
    }
}

/// The files that a path with at most one `*` in its last part names, in order.
fn files(pattern: &Path) -> Result<Vec<PathBuf>, String> {
    let (folder, name) =
        (pattern.parent().unwrap_or(Path::new(".")), pattern.file_name().unwrap_or_default());
    let name = name.to_str().unwrap_or_default();
    let Some((start, end)) = name.split_once('*').filter(|_| !folder.to_string_lossy().contains('*')) else {
        return match pattern.to_string_lossy().contains(['*', '?', '[']) {
            true => Err("of patterns only one `*`, in the name of the file, is supported".to_owned()),
            false => Ok(vec![pattern.to_owned()]),
        };
    };
    if end.contains(['*', '?', '[']) || start.contains(['?', '[']) {
        return Err("of patterns only one `*`, in the name of the file, is supported".to_owned());
    }
    // A pattern that matches nothing imports nothing, as where the folder is not there.
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(Vec::new()) };
    let matches = |name: &str| {
        let hidden = name.starts_with('.') && !start.starts_with('.');
        name.len() >= start.len() + end.len() && name.starts_with(start) && name.ends_with(end) && !hidden
    };
    let paths = entries.flatten().map(|entry| entry.path());
    let mut found: Vec<PathBuf> = paths
        .filter(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(matches) && !path.is_dir())
        .collect();
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path, pattern: &str) -> Result<Vec<String>, String> {
        let files = Disk.import(&folder.join("Corefile").display().to_string(), pattern)?;
        Ok(files
            .into_iter()
            .map(|(path, _)| path.rsplit('/').next().unwrap_or_default().to_owned())
            .collect())
    }

    #[test]
    fn patterns_are_of_the_corefile_s_own_folder() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("custom")).unwrap();
        for name in ["b.override", "a.override", "a.server", ".hidden.override"] {
            std::fs::write(folder.path().join("custom").join(name), "log\n").unwrap();
        }
        assert_eq!(names(folder.path(), "custom/*.override").unwrap(), ["a.override", "b.override"]);
        assert_eq!(names(folder.path(), "custom/a.server").unwrap(), ["a.server"]);
        assert_eq!(
            names(folder.path(), "nothing/*.override").unwrap(),
            [""; 0],
            "an empty pattern is no error"
        );
        assert!(names(folder.path(), "custom/c.server").unwrap_err().contains("c.server"));
        for pattern in ["*/a.server", "custom/**", "custom/?.server"] {
            assert!(names(folder.path(), pattern).unwrap_err().contains("one `*`"), "{pattern}");
        }
        let absolute = folder.path().join("custom/a.*");
        assert_eq!(names(Path::new("/elsewhere"), absolute.to_str().unwrap()).unwrap().len(), 2);
    }
}
