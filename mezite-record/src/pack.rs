//! Packing of chunks: zstd where it brings something, and no time lost where it does not.

use std::cell::RefCell;

use zstd::bulk::Compressor;

use crate::encode::EncodeError;

/// zstd level of chunks: the fastest that is not a negative one.
const LEVEL: i32 = 1;
/// Most frames in a row that are not tried.
const PASSED_OVER: u8 = 7;
/// What a thread keeps allocated between calls.
const KEPT: usize = 64 * 1024;

/// A compressor and its room.
#[derive(Default)]
pub(crate) struct Packer {
    compressor: Option<Compressor<'static>>,
    room: Vec<u8>,
}

thread_local! {
    /// One for all journals of a thread: a session that rests holds no tables of a compressor.
    static SHARED: RefCell<Packer> = RefCell::default();
}

impl Packer {
    /// Puts the zstd frame of what `out` holds from `from` on in its place, if that is shorter by a sixteenth. Tells whether.
    pub(crate) fn pack(&mut self, out: &mut Vec<u8>, from: usize) -> Result<bool, EncodeError> {
        let compressor = match &mut self.compressor {
            Some(compressor) => compressor,
            none => {
                let made = Compressor::new(LEVEL);
                none.insert(made.map_err(|_| EncodeError::Chunk("there is no compressor"))?)
            }
        };
        let plain = out.get(from..).unwrap_or_default();
        let worth = plain.len() - plain.len() / 16;
        self.room.clear();
        self.room.reserve(worth);
        // It stops where its room ends.
        let packed = compressor.compress_to_buffer(plain, &mut self.room);
        let shorter = packed.is_ok_and(|length| length < worth);
        if shorter {
            out.truncate(from);
            out.extend_from_slice(&self.room);
        }
        Ok(shorter)
    }
}

/// Which frames of a journal are tried: after each that zstd left as long as it was more are passed over, up to a bound.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    /// After the last attempt.
    passing: u8,
    left: u8,
}

impl Attempts {
    /// As [`Packer::pack`], unless the frames before say that it is in vain.
    pub(crate) fn pack(&mut self, out: &mut Vec<u8>, from: usize) -> Result<bool, EncodeError> {
        if let Some(left) = self.left.checked_sub(1) {
            self.left = left;
            return Ok(false);
        }
        let packed = SHARED.with_borrow_mut(|packer| {
            let packed = packer.pack(out, from);
            packer.room.clear();
            packer.room.shrink_to(KEPT);
            packed
        })?;
        self.passing = match packed {
            true => 0,
            false => (self.passing * 2 + 1).min(PASSED_OVER),
        };
        self.left = self.passing;
        Ok(packed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise() -> Vec<u8> {
        let mut state = 1_u64;
        std::iter::repeat_with(|| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            state.to_be_bytes()[0]
        })
        .take(5000)
        .collect()
    }

    #[test]
    fn only_what_becomes_shorter_is_packed_and_what_stands_before_it_stays() {
        let mut packer = Packer::default();
        let text = [b"head".as_slice(), &[b'x'; 5000]].concat();
        let mut out = text;
        assert_eq!(packer.pack(&mut out, 4), Ok(true));
        assert!(out.starts_with(b"head") && out.len() < 100);
        let unpacked = zstd::bulk::decompress(out.split_off(4).as_slice(), 5000);
        assert!(unpacked.is_ok_and(|it| it == [b'x'; 5000]));
        for plain in [noise(), Vec::new(), b"x".to_vec()] {
            let mut out = plain.clone();
            assert_eq!(packer.pack(&mut out, 0), Ok(false));
            assert!(out == plain);
        }
    }

    #[test]
    fn after_noise_few_frames_are_passed_over_and_text_ends_it() {
        let mut attempts = Attempts::default();
        let mut packed = |plain: &[u8]| attempts.pack(&mut plain.to_vec(), 0) == Ok(true);
        let mut until_packed = |noises: usize| {
            for _ in 0..noises {
                assert!(!packed(&noise()));
            }
            let passed = (0..20).take_while(|_| !packed(&[b'x'; 5000])).count();
            assert!(packed(&[b'x'; 5000]));
            passed
        };
        assert_eq!([0, 1].map(&mut until_packed), [0, 1]);
        assert!((0..40).map(until_packed).all(|passed| passed <= 7));
    }
}
