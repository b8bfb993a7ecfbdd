// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! Pages to measure with: from corpus files, or sampled from this machine.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use zcache_store::{PAGE_SIZE, Page};

use super::random::Random;

/// Pages taken from one file or process when the machine is sampled.
const SAMPLED_RUN: usize = 8;
/// Pages sampled of each kind.
const SAMPLED_PAGES: usize = 6000;

/// Real pages, and where they come from.
pub(super) struct Corpus {
    pub(super) name: String,
    pub(super) pages: Vec<Page>,
}

impl Corpus {
    /// Reads a file of concatenated pages, compressed with zstd if its name says so.
    fn read(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
        let bytes = if path.extension().is_some_and(|extension| extension == "zst") {
            zstd::decode_all(&bytes[..]).with_context(|| format!("{} is not zstd-compressed", path.display()))?
        } else {
            bytes
        };
        let (pages, rest) = bytes.as_chunks::<PAGE_SIZE>();
        ensure!(rest.is_empty(), "{} is not a whole number of pages", path.display());
        ensure!(!pages.is_empty(), "{} has no pages", path.display());
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { name, pages: pages.to_vec() })
    }

    /// The given files, or samples of this machine.
    pub(super) fn load(files: &[PathBuf]) -> Result<Vec<Self>> {
        if !files.is_empty() {
            return files.iter().map(|file| Self::read(file)).collect();
        }
        let sampled = [Self::sample_files()?, Self::sample_processes()];
        let usable: Vec<Self> = sampled.into_iter().filter(|corpus| corpus.pages.len() >= 500).collect();
        if usable.is_empty() {
            bail!("this machine yields no pages to measure with; name files with --corpus");
        }
        Ok(usable)
    }

    /// Short runs of pages of the files under /usr, as a page cache would hold them.
    fn sample_files() -> Result<Self> {
        let mut files = Vec::new();
        list(Path::new("/usr"), 6, &mut files);
        ensure!(!files.is_empty(), "/usr has no readable files");
        files.sort();
        let mut random = Random::new(1);
        let mut pages = Vec::new();
        for _ in 0..SAMPLED_PAGES {
            if pages.len() >= SAMPLED_PAGES {
                break;
            }
            let path = &files[random.below(files.len())];
            // A file that vanished or may not be read is simply no part of the sample.
            let _ = read_run(path, &mut random, &mut pages);
        }
        Ok(Self { name: "sampled files under /usr".into(), pages })
    }

    /// Short runs of resident anonymous pages of all processes that may be read.
    fn sample_processes() -> Self {
        let mut random = Random::new(2);
        let mut ranges = Vec::new();
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        for process in processes.map(|entry| entry.path()) {
            let maps = fs::read_to_string(process.join("maps")).unwrap_or_default();
            ranges.extend(maps.lines().filter_map(|line| anonymous(&process, line)));
        }
        let mut pages = Vec::new();
        for _ in 0..SAMPLED_PAGES * 4 {
            if pages.len() >= SAMPLED_PAGES || ranges.is_empty() {
                break;
            }
            let (process, start, count) = &ranges[random.below(ranges.len())];
            let page = random.below(*count);
            let run = SAMPLED_RUN.min(count - page);
            // A process that ended is no part of the sample.
            let _ = read_resident(process, start / PAGE_SIZE as u64 + page as u64, run, &mut pages);
        }
        Self { name: "sampled memory of processes".into(), pages }
    }
}

fn list(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_file() => files.push(entry.path()),
            Ok(kind) if kind.is_dir() && depth > 0 => list(&entry.path(), depth - 1, files),
            _ => {}
        }
    }
}

fn read_run(path: &Path, random: &mut Random, pages: &mut Vec<Page>) -> std::io::Result<()> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let count = usize::try_from(length.div_ceil(PAGE_SIZE as u64)).unwrap_or(usize::MAX);
    if count == 0 {
        return Ok(());
    }
    let first = random.below(count);
    file.seek(SeekFrom::Start((first * PAGE_SIZE) as u64))?;
    for _ in first..count.min(first + SAMPLED_RUN) {
        let mut page = Vec::with_capacity(PAGE_SIZE);
        file.by_ref().take(PAGE_SIZE as u64).read_to_end(&mut page)?;
        // The page cache fills the last page of a file with zeroes.
        page.resize(PAGE_SIZE, 0);
        pages.extend(page.as_chunks::<PAGE_SIZE>().0);
    }
    Ok(())
}

/// Process, start and pages of a private anonymous mapping or heap.
fn anonymous(process: &Path, line: &str) -> Option<(PathBuf, u64, usize)> {
    let mut fields = line.split_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let writable = fields.next()?.starts_with("rw-p");
    let name = fields.nth(3).unwrap_or("");
    if !writable || !(name.is_empty() || name == "[heap]") {
        return None;
    }
    let start = u64::from_str_radix(start, 16).ok()?;
    let end = u64::from_str_radix(end, 16).ok()?;
    Some((process.to_owned(), start, usize::try_from((end - start) / PAGE_SIZE as u64).ok()?))
}

fn read_resident(process: &Path, first: u64, count: usize, pages: &mut Vec<Page>) -> std::io::Result<()> {
    const PRESENT: u64 = 1 << 63;
    let mut pagemap = File::open(process.join("pagemap"))?;
    pagemap.seek(SeekFrom::Start(first * 8))?;
    let mut memory = File::open(process.join("mem"))?;
    for page in first..first + count as u64 {
        let mut entry = [0; 8];
        pagemap.read_exact(&mut entry)?;
        if u64::from_le_bytes(entry) & PRESENT == 0 {
            continue;
        }
        memory.seek(SeekFrom::Start(page * PAGE_SIZE as u64))?;
        let mut content = [0; PAGE_SIZE];
        memory.read_exact(&mut content)?;
        pages.push(content);
    }
    Ok(())
}
