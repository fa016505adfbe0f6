//! One block through zstd, with what it is packed against.

use std::io;

use zstd::zstd_safe::{CCtx, CParameter, DCtx, compress_bound, get_error_name};

/// How much is tried, in so many pieces, to see whether a block compresses at all.
const PROBE: usize = 16 << 10;
const PROBES: usize = 8;

fn failed(code: usize) -> io::Error {
    io::Error::other(get_error_name(code))
}

/// Compresses a block into one frame.
pub(crate) fn compress(block: &[u8], prefix: &[u8], level: i32) -> io::Result<Vec<u8>> {
    let mut context = CCtx::create();
    let mut set = |parameter| context.set_parameter(parameter).map(drop).map_err(failed);
    set(CParameter::ChecksumFlag(true))?;
    if prefix.is_empty() {
        let level = if level > 1 && !compresses(block) { 1 } else { level };
        set(CParameter::CompressionLevel(level))?;
        return run(&mut context, block);
    }
    // Tables and window over all of it.
    let all = prefix.len() + block.len();
    let log = (usize::BITS - (all - 1).leading_zeros()).max(18);
    let e = |n: &str, d: u32| std::env::var(n).ok().and_then(|b| b.parse().ok()).unwrap_or(d);
    set(CParameter::CompressionLevel(e("PL", 3) as i32))?;
    set(CParameter::WindowLog(log))?;
    set(CParameter::HashLog(e("HL", 22)))?;
    set(CParameter::ChainLog(e("CL", 22)))?;
    if e("LDM", 1) == 1 {
        set(CParameter::EnableLongDistanceMatching(true))?;
        set(CParameter::LdmHashLog(e("LHL", 20)))?;
        set(CParameter::LdmHashRateLog(e("LHR", 4)))?;
    }
    context.ref_prefix(prefix).map_err(failed)?;
    run(&mut context, block)
}

fn run(context: &mut CCtx<'_>, block: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(compress_bound(block.len()));
    context.compress2(&mut out, block).map_err(failed)?;
    out.shrink_to_fit();
    Ok(out)
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
