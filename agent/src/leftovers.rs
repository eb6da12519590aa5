//! The files that agents keep beside the reservations of addresses, and what `--cleanup` does with them. What
//! the plugin needs to delete a container stays: `weft remove-plugins` takes it, once there is none.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use weft_policy::pending::GuardedNamespaces;

use crate::options::Options;
use crate::policy::remembered;
use crate::routing::wireguard::options::KEY_FILE;
use crate::{Error, Result};

/// Removes them. What is not there is no error.
pub(crate) fn remove(options: &Options) -> Vec<Error> {
    let data_dir = &options.cni_data_dir;
    let files = [GuardedNamespaces::path(data_dir), data_dir.join(remembered::FILE), data_dir.join(KEY_FILE)];
    // Half of one, that a crash left, is beside it.
    let files = files.into_iter().flat_map(|path| [path.with_extension("new"), path]);
    let files = files.map(|path| removed(&path, fs::remove_file(&path)));
    files.filter_map(Result::err).collect()
}

fn removed(path: &Path, outcome: io::Result<()>) -> Result<()> {
    match outcome {
        Err(problem) if problem.kind() != ErrorKind::NotFound => {
            Err(Error::Leftover { path: PathBuf::from(path), problem })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<String> =
            entries.map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_agents_kept_goes_and_what_others_and_pods_need_stays() {
        let folder = tempfile::tempdir().unwrap();
        for file in [".policy-namespaces", ".policy-pods", ".policy-pods.new", ".wireguard-key", "theirs"] {
            fs::write(folder.path().join(file), "x").unwrap();
        }
        for kept in ["weft", ".asked"] {
            fs::create_dir(folder.path().join(kept)).unwrap();
        }
        let options = ["weft-agent".to_owned(), format!("--cni-data-dir={}", folder.path().display())];
        let options = Options::parse_from(options);
        assert!(remove(&options).is_empty());
        assert_eq!(names(folder.path()), [".asked", "theirs", "weft"]);
        assert!(remove(&options).is_empty(), "a second time there is nothing");
        fs::create_dir(folder.path().join(".wireguard-key")).unwrap();
        let errors: Vec<String> = remove(&options).iter().map(ToString::to_string).collect();
        assert!(errors.len() == 1 && errors[0].contains(".wireguard-key"), "{errors:?}");
    }
}
