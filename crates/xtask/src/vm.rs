//! `cargo xtask vm-test`: the isolation tests (or with `oci` as the first word those of `rads-oci`) where a machine differs
//! from the usual one: Debian's own kernel, nothing but cgroup v2, an ext4 with project quota.
//!
//! qemu emulates the machine, so neither KVM nor rights beyond those of the tests are needed, and everything is some ten
//! times slower. Kernel and programs come from Debian's archive; the rest is the host's own files, seen read-only over 9p.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::apt;
use crate::command::{self, Outcome};

/// Debian packages, and the program each brings.
const PROGRAMS: [(&str, &str); 7] = [
    ("qemu-system-x86", "qemu-system-x86_64"),
    ("busybox-static", "busybox"),
    ("cpio", "cpio"),
    ("kmod", "depmod"),
    ("e2fsprogs", "mkfs.ext4"),
    ("iptables", "iptables"),
    ("iproute2", "ip"),
];
/// Modules without which there is no way to the host's files or the disk; those they need come along.
const MODULES: [&str; 4] = ["virtio_pci", "virtio_blk", "9pnet_virtio", "9p"];
const MORE_MODULES: [&str; 4] = ["quota_v2", "ext4", "crc32c_generic", "loop"];
/// Room of the disk at /tmp. The file is sparse.
const DISK: u64 = 4 << 30;

pub(crate) fn run(filter: &[&str]) -> Outcome {
    apt::install(&PROGRAMS, "are needed");
    let (package, test, filter) = match filter {
        ["oci", rest @ ..] => ("oci", "runtime", rest),
        all => ("isolate", "stars", all),
    };
    let program = test_program(package, test)?;
    let place = command::target_dir()?.join("vm");
    fs::create_dir_all(&place).map_err(|error| format!("cannot make `{}`: {error}", place.display()))?;
    let kernel = Kernel::fetch(&place)?;
    let initial = place.join("initramfs");
    kernel.pack(&place, &initial)?;
    let disk = place.join("disk");
    let made = fs::File::create(&disk).and_then(|file| file.set_len(DISK));
    made.map_err(|error| format!("cannot make `{}`: {error}", disk.display()))?;
    let outcome = boot(&kernel, &initial, &disk, &program, filter);
    let _ = fs::remove_file(&disk);
    outcome
}

/// The tests, one program.
fn test_program(package: &str, test: &str) -> Result<PathBuf, String> {
    let args = ["test", "--package", package, "--test", test, "--no-run", "--message-format", "json"];
    println!("$ cargo {}", args[..6].join(" "));
    let messages = command::output("cargo", &args)?;
    let found = messages.lines().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let is_it = message["target"]["name"] == test && message["profile"]["test"] == true;
        is_it.then(|| message["executable"].as_str().map(PathBuf::from))?
    });
    found.ok_or_else(|| "cargo names no test program".to_owned())
}

struct Kernel {
    image: PathBuf,
    /// `…/lib/modules/VERSION`.
    modules: PathBuf,
    /// What stands before `lib/modules`.
    root: PathBuf,
}

impl Kernel {
    /// Debian's current kernel, unpacked below `place` unless it is there already.
    fn fetch(place: &Path) -> Result<Self, String> {
        let depends = command::output("apt-cache", &["depends", "linux-image-amd64"])?;
        let package = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: linux-image-"));
        let version = package.ok_or("the archive has no `linux-image-amd64`")?;
        let root = place.join(version);
        let kernel = Self {
            image: root.join(format!("boot/vmlinuz-{version}")),
            modules: root.join("lib/modules").join(version),
            root: root.clone(),
        };
        if !kernel.modules.join("modules.dep").exists() {
            command::run_in(place, "apt-get", &["-qq", "download", &format!("linux-image-{version}")])?;
            let archive = fs::read_dir(place).into_iter().flatten().flatten().map(|entry| entry.path());
            let archive = archive.into_iter().find(|path| path.extension().is_some_and(|kind| kind == "deb"));
            let archive = archive.ok_or("apt-get downloaded nothing")?;
            let (archive_name, root_name) = (archive.display().to_string(), root.display().to_string());
            command::run_in(place, "dpkg-deb", &["-x", &archive_name, &root_name])?;
            let _ = fs::remove_file(archive);
            command::run_in(place, "/sbin/depmod", &["-b", &root_name, version])?;
        }
        Ok(kernel)
    }

    /// The initial memory file system: busybox, the init script, the first modules in the order of their loading.
    fn pack(&self, place: &Path, to: &Path) -> Outcome {
        let folder = place.join("initial");
        let _ = fs::remove_dir_all(&folder);
        let write = || -> std::io::Result<()> {
            fs::create_dir_all(folder.join("bin"))?;
            fs::create_dir_all(folder.join("modules"))?;
            let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
            fs::copy(busybox.unwrap_or("/bin/busybox"), folder.join("bin/busybox"))?;
            fs::write(folder.join("init"), include_str!("../vm/init"))?;
            fs::set_permissions(folder.join("init"), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
            let mut order = String::new();
            for module in self.in_order()? {
                let name = module.file_name().unwrap_or_default().to_string_lossy().into_owned();
                fs::copy(self.modules.join(&module), folder.join("modules").join(&name))?;
                order += &format!("{name}\n");
            }
            fs::write(folder.join("modules/order"), order)
        };
        write().map_err(|error| format!("cannot make the initial file system: {error}"))?;
        let pack = format!("find . | cpio --quiet -o -H newc > '{}'", to.display());
        command::run_in(&folder, "sh", &["-c", &pack])
    }

    /// The first modules, each after those it needs, as `modules.dep` lists them.
    fn in_order(&self) -> std::io::Result<Vec<PathBuf>> {
        let table = fs::read_to_string(self.modules.join("modules.dep"))?;
        let line_of = |module: &str| {
            let ending = format!("/{module}.ko");
            table.lines().filter_map(|line| line.split_once(':')).find(|(path, _)| path.ends_with(&ending))
        };
        let mut order: Vec<PathBuf> = Vec::new();
        for module in MORE_MODULES.into_iter().rev().chain(MODULES) {
            // A module that is built into the kernel is not listed.
            let Some((path, needs)) = line_of(module) else { continue };
            // What is needed most comes last in the table.
            for path in needs.split_whitespace().rev().chain([path]) {
                if !order.iter().any(|known| known == Path::new(path)) {
                    order.push(path.into());
                }
            }
        }
        Ok(order)
    }
}

fn boot(kernel: &Kernel, initial: &Path, disk: &Path, program: &Path, filter: &[&str]) -> Outcome {
    let tree = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).filter(|tree| tree.starts_with("/tmp"));
    let tree = tree.map(|tree| format!(" rads.tree={}", tree.display())).unwrap_or_default();
    let words = format!(
        "console=ttyS0 quiet loglevel=3 panic=-1 lsm=landlock,yama,apparmor rads.run={} rads.filter={} rads.modules={}{tree}",
        program.display(),
        filter.join(","),
        kernel.root.display()
    );
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "3G"])
        .args(["-nographic", "-no-reboot", "-nic", "none", "-append", &words])
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(initial)
        .args(["-fsdev", "local,id=host,path=/,security_model=none,readonly=on,multidevs=remap"])
        .args(["-device", "virtio-9p-pci,fsdev=host,mount_tag=host"])
        .arg("-drive")
        .arg(format!("file={},if=virtio,format=raw,cache=unsafe", disk.display()));
    println!("$ qemu-system-x86_64 … -kernel {}", kernel.image.display());
    let mut machine = qemu
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot run qemu-system-x86_64: {error}"))?;
    let output = machine.stdout.take().ok_or("qemu has no output")?;
    let (mut code, mut begun) = (None, false);
    for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        if let Some(number) = line.strip_prefix("tests ended with code ") {
            code = number.parse::<i32>().ok();
        }
        // Until then the firmware draws on the screen.
        if begun {
            println!("{}", line.rsplit('\u{1b}').next().unwrap_or_default().trim_start_matches("[2J"));
        }
        begun |= line.starts_with("Booting from ROM");
    }
    let status = machine.wait().map_err(|error| format!("qemu: {error}"))?;
    match code {
        Some(0) => Ok(()),
        Some(code) => Err(format!("the tests in the virtual machine failed (code {code})")),
        None => Err(format!("the virtual machine ended before its tests did ({status})")),
    }
}
