// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Our devices below `/dev/mapper`: opened, closed, changed.

pub(crate) mod details;
pub(crate) mod device;

use crate::error::{Error, Result, Voice, failed};
use crate::hiding;
use crate::kernel;
use crate::lock::Lock;
use crate::origin::{Origin, check_free};
use crate::spec::Spec;
use crate::values::{Name, Put};

use device::{Kind, Mapped};

const MODULE: &str = "dm_zcache";

/// Makes `/dev/mapper/NAME` over a device.
pub(crate) fn open(spec: &Spec, name: &Name, put: Put, voice: &Voice) -> Result<()> {
    let _lock = Lock::of_name(name)?;
    if let Some(there) = Mapped::find(name.as_str()) {
        return Err(taken(name, &there));
    }
    let origin = Origin::claim(spec)?;
    kernel::load(MODULE)?;
    make_cached(&origin, name, put, voice)
}

/// The same, but whoever mounts `/dev/mapper/NAME` at boot is not to fail for want of a cache: a
/// kernel that lacks the module gets the device itself.
pub(crate) fn open_or_pass(spec: &Spec, name: &Name, put: Put, voice: &Voice) -> Result<()> {
    let _lock = Lock::of_name(name)?;
    match Mapped::find(name.as_str()) {
        Some(there) if there.is_ours() => return Ok(()),
        Some(there) => return Err(taken(name, &there)),
        None => {}
    }
    let origin = Origin::claim(spec)?;
    let Err(why) = kernel::load(MODULE) else { return make_cached(&origin, name, put, voice) };
    kernel::load("dm_mod")?;
    Mapped::create(name, &origin, &Kind::Linear)?;
    hiding::hide(name, origin.number);
    voice.say(&why);
    voice.say(format!("{name}: not cached, /dev/mapper/{name} passes everything to {}", origin.spec));
    Ok(())
}

fn taken(name: &Name, by: &Mapped) -> Error {
    let undo = if by.is_ours() { format!("zcachesetup close {name}") } else { format!("dmsetup info {name}") };
    failed(format!("{name}: a device of that name exists; choose another name, or see {undo}"))
}

fn make_cached(origin: &Origin, name: &Name, put: Put, voice: &Voice) -> Result<()> {
    kernel::load_transport();
    Mapped::create(name, origin, &Kind::Zcache(put))?;
    hiding::hide(name, origin.number);
    if origin.number.is_encrypted() {
        warn_of_plaintext(name, &origin.spec, voice);
    }
    Ok(())
}

fn warn_of_plaintext(name: &Name, origin: &str, voice: &Voice) {
    voice.say(format!("warning: {name}: {origin} is decrypted here, and the host gets to see its pages"));
}

/// Removes a device that nobody uses.
pub(crate) fn close(name: &Name) -> Result<()> {
    let _lock = Lock::of_name(name)?;
    let mapped = ours(name)?;
    let origin = mapped.table().ok().map(|table| table.origin);
    check_free(name.as_str(), mapped.number)?;
    let _origin_lock = origin.map(Lock::of_origin).transpose()?;
    mapped.remove()?;
    if let Some(origin) = origin {
        hiding::show(origin);
    }
    Ok(())
}

/// Drops what the host has of it.
pub(crate) fn flush(name: &Name) -> Result<()> {
    let mapped = ours(name)?;
    if !mapped.table()?.is_cached() {
        return Err(failed(format!("{name}: not cached, so nothing is to be flushed; see zcachesetup reload {name}")));
    }
    mapped.message("flush")
}

/// Makes it as large as the device below. The filesystem is made larger by its own tool, after
/// this.
pub(crate) fn resize(name: &Name) -> Result<()> {
    let _lock = Lock::of_name(name)?;
    let mapped = ours(name)?;
    let table = mapped.table()?;
    let sectors = table.origin.sectors();
    if sectors < table.sectors {
        let origin = table.origin.path();
        return Err(failed(format!("{name}: {origin} is smaller than it was; make it as large again")));
    }
    if sectors == table.sectors { Ok(()) } else { mapped.replace(&table.of_size(sectors)) }
}

/// Has pages kept of a device that passes everything through, or kept in another way.
pub(crate) fn reload(name: &Name, put: Put, voice: &Voice) -> Result<()> {
    let _lock = Lock::of_name(name)?;
    let mapped = ours(name)?;
    let table = mapped.table()?;
    let wanted = table.with_put(put);
    if wanted == table {
        return Ok(());
    }
    kernel::load(MODULE)?;
    kernel::load_transport();
    mapped.replace(&wanted)?;
    hiding::hide(name, wanted.origin);
    if wanted.origin.is_encrypted() {
        warn_of_plaintext(name, &wanted.origin.path(), voice);
    }
    Ok(())
}

/// The device of a name, if it is there and ours.
pub(crate) fn ours(name: &Name) -> Result<Mapped> {
    let not_open = || failed(format!("{name}: not open; those that are: zcachesetup status"));
    let mapped = Mapped::find(name.as_str()).ok_or_else(not_open)?;
    if mapped.is_ours() { Ok(mapped) } else { Err(not_ours(name)) }
}

fn not_ours(name: &Name) -> Error {
    failed(format!("{name}: not a zcache device; see dmsetup table {name}"))
}
