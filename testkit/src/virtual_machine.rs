//! Debian's kernel for virtual machines, under QEMU: for what the running kernel was built without. Without
//! hardware's help it is slow, and boots in some five seconds.
//!
//! All files of the machine are in memory: what is named, with the libraries that it needs.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A kernel that hangs must not hang everything else.
const SECONDS: &str = "900";
/// Where the kernel is unpacked, by `scripts/kernel`.
const KERNEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/kernel");
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/kernel");
/// What drives its network cards.
const DRIVERS: [&str; 2] = ["virtio_pci", "virtio_net"];
/// File types and permissions of `struct stat`.
const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;

/// What the machine has.
#[derive(Clone, Copy, Debug)]
pub struct Machine<'a> {
    /// The kernel's modules, besides those that these need.
    pub modules: &'a [&'a str],
    /// Programs of this machine, by their names, and those that were built, by their paths, which they keep.
    pub programs: &'a [&'a str],
    /// Devices of the kind tun, mode tap, of the calling thread's network namespace, that nobody else has open.
    /// The machine's network cards have the same names.
    pub links: &'a [String],
    /// What a shell does before the program runs.
    pub setup: &'a str,
}

impl Machine<'_> {
    /// One with nothing besides what every machine has.
    pub const BARE: Machine<'static> = Machine { modules: &[], programs: &[], links: &[], setup: "" };

    /// Runs the calling program there with these arguments, and returns all that was said. One that fails
    /// says so: the caller looks for what it says when all is well.
    pub fn run(&self, arguments: &str) -> String {
        let status = Command::new(SCRIPT).arg(KERNEL).status();
        assert!(status.is_ok_and(|status| status.success()), "{SCRIPT} does not unpack Debian's kernel");
        let folder = tempfile::tempdir().unwrap();
        let files = folder.path().join("files");
        fs::write(&files, self.archive(folder.path(), arguments)).unwrap();
        let output = Command::new("timeout")
            .args([
                "--kill-after=10",
                SECONDS,
                "qemu-system-x86_64",
                "-M",
                "q35",
                "-cpu",
                "max",
                "-m",
                "2048",
                "-smp",
                "2",
            ])
            .args(["-accel", "tcg,thread=multi", "-nographic", "-no-reboot", "-nic", "none"])
            .args(["-append", "console=ttyS0 quiet panic=-1 mitigations=off nokaslr"])
            .arg("-kernel")
            .arg(boot_image())
            .arg("-initrd")
            .arg(&files)
            .args(self.links.iter().enumerate().flat_map(|(number, link)| cable(number, link)))
            .stdin(Stdio::null())
            .output()
            .expect("timeout is there (Debian: apt-get install coreutils qemu-system-x86)");
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat()
    }

    /// The files, as an archive that the kernel unpacks.
    fn archive(&self, folder: &Path, arguments: &str) -> Vec<u8> {
        let mut files = Archive::default();
        for name in ["proc", "sys", "dev", "tmp", "run", "modules"] {
            files.put(name, FOLDER, &[]);
        }
        let drivers = if self.links.is_empty() { &[] } else { &DRIVERS[..] };
        let load = load(&[self.modules, drivers].concat(), &mut files);
        files.program("program", &stripped(folder, &std::env::current_exe().unwrap()));
        for name in self.programs.iter().chain(&["busybox"]) {
            match name.strip_prefix('/') {
                Some(path) => files.program(path, &stripped(folder, Path::new(name))),
                None => files.program(&format!("bin/{name}"), &found(name)),
            }
        }
        // Nothing is mounted on /tmp: what was built may be there.
        let init = format!(
            "#!/bin/busybox sh\nexport RUST_BACKTRACE=1 PATH=/bin:/busybox\n/bin/busybox mkdir /busybox\n\
             /bin/busybox --install -s /busybox\nmount -t proc proc /proc; mount -t sysfs sys /sys\n\
             mount -t cgroup2 cgroup /sys/fs/cgroup; mount -t devtmpfs dev /dev; mount -t tmpfs tmp /run\n{load}\
             ip link set lo up\n{cards}{setup}\n/program {arguments} 2>&1\necho \"ended with $?\"\npoweroff -f\n",
            cards = name_cards(self.links),
            setup = self.setup
        );
        files.put("init", PROGRAM, init.as_bytes());
        files.end()
    }
}

fn boot_image() -> PathBuf {
    let files = fs::read_dir(Path::new(KERNEL).join("boot")).unwrap().map(|entry| entry.unwrap().path());
    let is_image = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with("vmlinuz");
    files.into_iter().find(is_image).unwrap_or_else(|| panic!("{KERNEL}/boot has no kernel; delete {KERNEL}"))
}

/// A network card whose other end is that device.
fn cable(number: usize, link: &str) -> [String; 4] {
    [
        "-netdev".to_owned(),
        format!("tap,id={link},ifname={link},script=no,downscript=no"),
        "-device".to_owned(),
        // Without the program by which a machine boots from the network.
        format!("virtio-net-pci,netdev={link},mac={},romfile=", mac(number)),
    ]
}

fn mac(number: usize) -> String {
    format!("52:54:00:00:00:{number:02x}")
}

/// What names the network cards, which come in any order, and not at once.
fn name_cards(links: &[String]) -> String {
    let name = |(number, link): (usize, &String)| {
        format!(
            "until card=$(grep -l {mac} /sys/class/net/*/address); do sleep 0.1; done\n\
             card=${{card%/address}}; ip link set ${{card##*/}} name {link}\n",
            mac = mac(number)
        )
    };
    links.iter().enumerate().map(name).collect()
}

/// Puts modules into the archive, with those that they need, and returns what loads them.
fn load(modules: &[&str], files: &mut Archive) -> String {
    let mut there = BTreeMap::new();
    find(&Path::new(KERNEL).join("lib/modules"), &mut there);
    let (mut order, mut script) = (Vec::new(), String::new());
    modules.iter().for_each(|name| visit(name, &there, &mut order));
    for name in order {
        // What the kernel was built with has no file.
        if let Some(path) = there.get(&name) {
            files.put(&format!("modules/{name}.ko"), PROGRAM, &fs::read(path).unwrap());
            script += &format!("insmod /modules/{name}.ko\n");
        }
    }
    script
}

fn find(folder: &Path, there: &mut BTreeMap<String, PathBuf>) {
    for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            find(&path, there);
        } else if path.extension().is_some_and(|extension| extension == "ko") {
            there.insert(path.file_stem().unwrap().to_string_lossy().replace('-', "_"), path);
        }
    }
}

/// Appends a module behind those that it needs.
fn visit(name: &str, there: &BTreeMap<String, PathBuf>, order: &mut Vec<String>) {
    let name = name.replace('-', "_");
    if name.is_empty() || order.contains(&name) {
        return;
    }
    if let Some(path) = there.get(&name) {
        let module = fs::read(path).unwrap();
        let mark = b"\0depends=";
        let start = module.windows(mark.len()).position(|window| window == mark).map(|at| at + mark.len());
        let needed =
            start.and_then(|start| module[start..].split(|byte| *byte == 0).next()).unwrap_or_default();
        String::from_utf8_lossy(needed).split(',').for_each(|needed| visit(needed, there, order));
    }
    order.push(name);
}

/// A program without what only debuggers read of it.
fn stripped(folder: &Path, program: &Path) -> PathBuf {
    let stripped = folder.join("program");
    let status = Command::new("strip").arg("-o").args([&stripped, program]).status();
    assert!(status.is_ok_and(|status| status.success()), "strip (Debian: apt-get install binutils)");
    stripped
}

fn found(name: &str) -> PathBuf {
    let folders = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(|folder| Path::new(folder).join(name));
    folders
        .into_iter()
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("there is no program {name} here"))
}

/// Files one behind the other, as cpio(5) has it by the name of `newc`.
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    names: Vec<String>,
}

impl Archive {
    /// A program with the libraries that it needs.
    fn program(&mut self, name: &str, path: &Path) {
        self.put(name, PROGRAM, &fs::read(path).unwrap());
        let libraries = Command::new("ldd").arg(path).output().unwrap().stdout;
        for word in
            String::from_utf8_lossy(&libraries).split_whitespace().filter(|word| word.starts_with('/'))
        {
            self.put(&word[1..], PROGRAM, &fs::read(word).unwrap());
        }
    }

    /// A file or a folder, with the folders above it; each once.
    fn put(&mut self, name: &str, mode: u32, content: &[u8]) {
        if self.names.iter().any(|known| known == name) {
            return;
        }
        if let Some((folder, _)) = name.rsplit_once('/') {
            self.put(folder, FOLDER, &[]);
        }
        self.names.push(name.to_owned());
        let number = self.names.len();
        let length = name.len() + 1;
        let header = [number as u32, mode, 0, 0, 1, 0, content.len() as u32, 0, 0, 0, 0, length as u32, 0];
        self.bytes.extend_from_slice(b"070701");
        header.iter().for_each(|field| self.bytes.extend_from_slice(format!("{field:08x}").as_bytes()));
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend_from_slice(content);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn end(mut self) -> Vec<u8> {
        self.put("TRAILER!!!", 0, &[]);
        self.bytes
    }
}
