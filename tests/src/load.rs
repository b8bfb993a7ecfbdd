// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Scripts that make a guest work and check what it reads. Each fails when a byte is wrong.

/// Forgets the clean pages of the page cache; those of files go to the device.
pub const DROP_CACHES: &str = "echo 1 > /proc/sys/vm/drop_caches";

/// Writes files of so many MiB into a folder; each 4 KiB carry a checksum.
#[must_use]
pub fn write_files(folder: &str, mib: u32) -> String {
    format!("{} --rw=write --do_verify=0 --end_fsync=1 >/dev/null", fio(folder, mib))
}

/// Reads the files of [`write_files`] and checks every byte.
#[must_use]
pub fn read_files(folder: &str, mib: u32) -> String {
    format!("{} --rw=read >/dev/null", fio(folder, mib))
}

/// Brings the files of [`write_files`] into the device: Linux offers only pages that it has
/// read from the disk, not those that it has written.
#[must_use]
pub fn cycle_files(folder: &str, mib: u32) -> String {
    let read = read_files(folder, mib);
    format!("{DROP_CACHES}; {read}; {DROP_CACHES}; {read}")
}

/// Uses so many MiB of anonymous memory for so many seconds.
#[must_use]
pub fn swaphog(mib: u32, seconds: u32) -> String {
    format!("swaphog --mib {mib} --seconds {seconds} --procs 2")
}

/// [`swaphog`] again and again, until [`STOP_LOAD`].
#[must_use]
pub fn swaphog_until_told(mib: u32) -> String {
    format!("while [ ! -e /tmp/stop ]; do {}; done", swaphog(mib, 4))
}

/// Ends [`swaphog_until_told`] and [`coherence_until_told`] after their next check of all pages.
pub const STOP_LOAD: &str = "touch /tmp/stop";

/// Changes files in every way there is, for so many seconds, while the page cache is
/// dropped over and over.
#[must_use]
pub fn coherence(folder: &str, seconds: u32) -> String {
    format!(
        "mkdir -p {folder}
         ( while sleep 0.3; do {DROP_CACHES}; done ) &
         dropper=$!
         trap 'kill $dropper' EXIT
         coherence --dir {folder} --procs 2 --seconds {seconds} --kib 4096"
    )
}

/// [`coherence`] again and again, until [`STOP_LOAD`].
#[must_use]
pub fn coherence_until_told(folder: &str) -> String {
    format!("while [ ! -e /tmp/stop ]; do ( {} ); done", coherence(folder, 3))
}

fn fio(folder: &str, mib: u32) -> String {
    format!(
        "fio --name=files --directory={folder} --size={mib}M --bs=256k --ioengine=psync \
         --verify=crc32c --verify_interval=4k --verify_fatal=1 --buffer_compress_percentage=50"
    )
}
