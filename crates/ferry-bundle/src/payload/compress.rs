//! One block through zstd, with what it is packed against.

use std::io;

use zstd::zstd_safe::{CCtx, CParameter, DCtx, compress_bound, get_error_name};

/// How much is tried, in so many pieces, to see whether a block compresses at all.
const PROBE: usize = 16 << 10;
const PROBES: usize = 8;
/// zstd's level for what higher levels would gain nothing on.
const FAST: i32 = 1;

fn failed(code: usize) -> io::Error {
    io::Error::other(get_error_name(code))
}

/// What a block is packed against.
#[derive(Default)]
pub(crate) struct Prefix {
    pub(crate) bytes: Vec<u8>,
    /// Whether nearly all of the block is in it.
    pub(crate) same: bool,
}

/// Compresses blocks into frames.
pub(crate) struct Compressor {
    /// For blocks without a prefix. (A context keeps its prefix, so others have one of their own.)
    context: CCtx<'static>,
}

impl Compressor {
    pub(crate) fn new() -> Self {
        Self { context: CCtx::create() }
    }

    /// Appends a frame that holds `block`.
    pub(crate) fn append(
        &mut self,
        out: &mut Vec<u8>,
        block: &[u8],
        prefix: &Prefix,
        level: i32,
    ) -> io::Result<()> {
        if !prefix.bytes.is_empty() {
            return append_against(out, block, prefix, level);
        }
        let level = if level > FAST && !compresses(block) { FAST } else { level };
        for parameter in [CParameter::ChecksumFlag(true), CParameter::CompressionLevel(level)] {
            self.context.set_parameter(parameter).map_err(failed)?;
        }
        append(&mut self.context, out, block)
    }
}

fn append_against(out: &mut Vec<u8>, block: &[u8], prefix: &Prefix, level: i32) -> io::Result<()> {
    let mut context = CCtx::create();
    let mut set = |parameter| context.set_parameter(parameter).map(drop).map_err(failed);
    set(CParameter::ChecksumFlag(true))?;
    // A window over all of it, and tables that are large enough for that.
    let all = prefix.bytes.len() + block.len();
    set(CParameter::WindowLog((usize::BITS - (all - 1).leading_zeros()).max(18)))?;
    if prefix.same || level < 9 {
        // What is the same is found by long matches; there is nothing to gain from searching.
        set(CParameter::CompressionLevel(if prefix.same { FAST } else { level.max(3) }))?;
        set(CParameter::HashLog(if prefix.same { 18 } else { 20 }))?;
        set(CParameter::EnableLongDistanceMatching(true))?;
        set(CParameter::LdmHashLog(20))?;
        set(CParameter::LdmHashRateLog(if prefix.same { 5 } else { 4 }))?;
    } else {
        set(CParameter::CompressionLevel(level))?;
        set(CParameter::HashLog(22))?;
        set(CParameter::ChainLog(22))?;
    }
    context.ref_prefix(&prefix.bytes).map_err(failed)?;
    append(&mut context, out, block)
}

fn append(context: &mut CCtx<'_>, out: &mut Vec<u8>, block: &[u8]) -> io::Result<()> {
    let start = out.len();
    out.resize(start + compress_bound(block.len()), 0);
    let room = out.get_mut(start..).unwrap_or_default();
    let written = context.compress2(room, block).map_err(failed)?;
    out.truncate(start + written);
    Ok(())
}

/// Whether some of it becomes smaller: on what does not, higher levels only waste time.
fn compresses(block: &[u8]) -> bool {
    let mut sample = Vec::with_capacity(PROBE * PROBES);
    for piece in 0..PROBES {
        let start = block.len() / PROBES * piece;
        sample.extend(block.iter().skip(start).take(PROBE));
    }
    let packed = zstd::bulk::compress(&sample, 1);
    packed.map_or(true, |packed| packed.len() < sample.len() / 64 * 63)
}

/// Decompresses a frame that holds `size` bytes.
pub(crate) fn decompress(frame: &[u8], prefix: &[u8], size: usize) -> Result<Vec<u8>, String> {
    let reason = |code| get_error_name(code).to_owned();
    let mut context = DCtx::create();
    if !prefix.is_empty() {
        context.ref_prefix(prefix).map_err(reason)?;
    }
    let mut plain = Vec::with_capacity(size);
    context.decompress(&mut plain, frame).map_err(reason)?;
    match plain.len() == size {
        true => Ok(plain),
        false => Err(format!("it holds {} bytes instead of {size}", plain.len())),
    }
}
