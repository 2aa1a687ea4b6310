//! The operating system's random generator, for drivers. It keeps nothing in this process: a machine that is resumed twice
//! from one snapshot, or a process that forks, draws other bytes each time. A generator that lives in the process would
//! give the same keys, serials and nonces twice.

use rand::rand_core::UnwrapErr;
use rand::rngs::SysRng;
use rand::{Rng as _, TryRng};

/// The generator, for functions that take one. Where the operating system gives no randomness, drawing panics: what was to
/// be made is not made.
#[must_use]
pub fn rng() -> UnwrapErr<SysRng> {
    UnwrapErr(SysRng)
}

/// So many random bytes, as [`rng`] draws them.
#[must_use]
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rng().fill_bytes(&mut bytes);
    bytes
}

/// Whether the generator works, asked once before a program makes anything.
///
/// # Errors
/// In words for an operator.
pub fn check() -> Result<(), String> {
    works(&mut SysRng)
}

fn works(generator: &mut impl TryRng) -> Result<(), String> {
    let says = |why: &str| {
        format!(
            "the operating system's random generator does not work: {why}; nothing can be made safely without it, so nothing is \
             started"
        )
    };
    let mut drawn = [[0; 32]; 2];
    for bytes in &mut drawn {
        generator
            .try_fill_bytes(bytes)
            .map_err(|error| says(&error.to_string()))?;
    }
    let [one, two] = drawn;
    if one == two || one == [one[0]; 32] {
        return Err(says("it gives the same bytes again and again"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use rand::Rng;

    use super::*;

    #[derive(Debug)]
    struct Broken;

    impl fmt::Display for Broken {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Input/output error")
        }
    }

    impl std::error::Error for Broken {}

    /// Gives so many answers, each of one byte, and then none.
    struct Failing {
        answers: usize,
        byte: u8,
    }

    impl TryRng for Failing {
        type Error = Broken;

        fn try_next_u32(&mut self) -> Result<u32, Broken> {
            Err(Broken)
        }

        fn try_next_u64(&mut self) -> Result<u64, Broken> {
            Err(Broken)
        }

        fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Broken> {
            self.answers = self.answers.checked_sub(1).ok_or(Broken)?;
            bytes.fill(self.byte);
            Ok(())
        }
    }

    #[test]
    fn attack_74_a_generator_that_fails_or_repeats_itself_is_refused_with_a_reason() {
        for (answers, byte, why) in [
            (0, 7, "Input/output error"),
            (1, 7, "Input/output error"),
            (9, 7, "the same bytes"),
            (9, 0, "the same bytes"),
        ] {
            let refused = works(&mut Failing { answers, byte }).unwrap_err();
            assert!(refused.contains(why), "{refused}");
            assert!(refused.contains("nothing is started"), "{refused}");
        }
        assert_eq!(check(), Ok(()));
        let mut drawn = [[0; 16]; 2];
        drawn.iter_mut().for_each(|bytes| rng().fill_bytes(bytes));
        assert_ne!(drawn[0], drawn[1]);
    }

    /// A key that was half drawn is no key.
    #[test]
    fn attack_74_drawing_without_a_generator_gives_nothing() {
        let drawn = std::panic::catch_unwind(|| {
            let mut bytes = [0; 32];
            UnwrapErr(Failing {
                answers: 0,
                byte: 7,
            })
            .fill_bytes(&mut bytes);
            bytes
        });
        assert!(drawn.is_err());
    }
}
