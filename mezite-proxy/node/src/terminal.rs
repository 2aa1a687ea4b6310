//! Terminals as SSH describes them: size, and modes encoded as in RFC 4254 section 8.

use nix::libc;
use nix::pty::Winsize;
use nix::sys::termios::{
    ControlFlags, InputFlags, LocalFlags, OutputFlags, SpecialCharacterIndices, Termios,
};

/// A terminal's size. Zero means "not told".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "the four numbers of RFC 4254 sections 6.2 and 6.7"
)]
pub struct Size {
    /// Columns, in characters.
    pub cols: u32,
    /// Rows, in characters.
    pub rows: u32,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
}

impl From<Size> for Winsize {
    /// Numbers beyond what the kernel holds become the largest it does.
    fn from(size: Size) -> Self {
        let short = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
        Self {
            ws_row: short(size.rows),
            ws_col: short(size.cols),
            ws_xpixel: short(size.width),
            ws_ypixel: short(size.height),
        }
    }
}

/// What a client asks for with `pty-req` (RFC 4254 section 6.2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "the fields of the request, made by the SSH side"
)]
pub struct Terminal {
    /// The value of `TERM`.
    pub name: String,
    /// The size at the start.
    pub size: Size,
    /// Modes as (opcode, argument); unknown opcodes are passed over.
    pub modes: Vec<(u8, u32)>,
}

/// Sets in `termios` what `modes` ask for; opcodes that Linux or this table does not know change nothing.
pub(crate) fn apply(termios: &mut Termios, modes: &[(u8, u32)]) {
    for (opcode, value) in modes {
        match opcode {
            1..=18 => set_character(termios, *opcode, *value),
            30..=42 => set_input(termios, *opcode, *value != 0),
            50..=62 => set_local(termios, *opcode, *value != 0),
            70..=75 => set_output(termios, *opcode, *value != 0),
            90..=93 => set_control(termios, *opcode, *value != 0),
            128 | 129 => set_speed(termios, *value),
            _ => {}
        }
    }
}

/// Control characters; 255 means none (RFC 4254 section 8), which Linux writes as 0.
fn set_character(termios: &mut Termios, opcode: u8, value: u32) {
    use SpecialCharacterIndices as Index;
    let index = match opcode {
        1 => Index::VINTR,
        2 => Index::VQUIT,
        3 => Index::VERASE,
        4 => Index::VKILL,
        5 => Index::VEOF,
        6 => Index::VEOL,
        7 => Index::VEOL2,
        8 => Index::VSTART,
        9 => Index::VSTOP,
        10 => Index::VSUSP,
        12 => Index::VREPRINT,
        13 => Index::VWERASE,
        14 => Index::VLNEXT,
        18 => Index::VDISCARD,
        _ => return,
    };
    let Ok(character) = u8::try_from(value) else {
        return;
    };
    #[expect(clippy::as_conversions, reason = "an enum of array indices")]
    if let Some(slot) = termios.control_chars.get_mut(index as usize) {
        *slot = if character == 255 { 0 } else { character };
    }
}

fn set_input(termios: &mut Termios, opcode: u8, on: bool) {
    let flag = match opcode {
        30 => InputFlags::IGNPAR,
        31 => InputFlags::PARMRK,
        32 => InputFlags::INPCK,
        33 => InputFlags::ISTRIP,
        34 => InputFlags::INLCR,
        35 => InputFlags::IGNCR,
        36 => InputFlags::ICRNL,
        38 => InputFlags::IXON,
        39 => InputFlags::IXANY,
        40 => InputFlags::IXOFF,
        41 => InputFlags::IMAXBEL,
        42 => InputFlags::IUTF8,
        _ => return,
    };
    termios.input_flags.set(flag, on);
}

fn set_local(termios: &mut Termios, opcode: u8, on: bool) {
    let flag = match opcode {
        50 => LocalFlags::ISIG,
        51 => LocalFlags::ICANON,
        53 => LocalFlags::ECHO,
        54 => LocalFlags::ECHOE,
        55 => LocalFlags::ECHOK,
        56 => LocalFlags::ECHONL,
        57 => LocalFlags::NOFLSH,
        58 => LocalFlags::TOSTOP,
        59 => LocalFlags::IEXTEN,
        60 => LocalFlags::ECHOCTL,
        61 => LocalFlags::ECHOKE,
        62 => LocalFlags::PENDIN,
        _ => return,
    };
    termios.local_flags.set(flag, on);
}

fn set_output(termios: &mut Termios, opcode: u8, on: bool) {
    let flag = match opcode {
        70 => OutputFlags::OPOST,
        71 => OutputFlags::OLCUC,
        72 => OutputFlags::ONLCR,
        73 => OutputFlags::OCRNL,
        74 => OutputFlags::ONOCR,
        75 => OutputFlags::ONLRET,
        _ => return,
    };
    termios.output_flags.set(flag, on);
}

/// CS7 and CS8 are values of one field: only switching one on says something.
fn set_control(termios: &mut Termios, opcode: u8, on: bool) {
    let size = match opcode {
        90 if on => ControlFlags::CS7,
        91 if on => ControlFlags::CS8,
        92 => return termios.control_flags.set(ControlFlags::PARENB, on),
        93 => return termios.control_flags.set(ControlFlags::PARODD, on),
        _ => return,
    };
    termios.control_flags.remove(ControlFlags::CSIZE);
    termios.control_flags.insert(size);
}

/// Speeds that the system has no name for are passed over; on a pseudo-terminal they are only shown, and there is one for
/// both ways. The flags are set here, because the C library's own functions are not there for a static program.
fn set_speed(termios: &mut Termios, value: u32) {
    if let Some(rate) = baud_rate(value) {
        termios.control_flags.remove(ControlFlags::CBAUD);
        let rate = ControlFlags::from_bits_retain(rate);
        termios.control_flags.insert(rate);
    }
}

fn baud_rate(bits_per_second: u32) -> Option<libc::speed_t> {
    Some(match bits_per_second {
        50 => libc::B50,
        75 => libc::B75,
        110 => libc::B110,
        134 => libc::B134,
        150 => libc::B150,
        200 => libc::B200,
        300 => libc::B300,
        600 => libc::B600,
        1200 => libc::B1200,
        1800 => libc::B1800,
        2400 => libc::B2400,
        4800 => libc::B4800,
        9600 => libc::B9600,
        19200 => libc::B19200,
        38400 => libc::B38400,
        57600 => libc::B57600,
        115_200 => libc::B115200,
        230_400 => libc::B230400,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_saturate() {
        let size = Size {
            cols: 132,
            rows: 70_000,
            width: u32::MAX,
            height: 0,
        };
        let window = Winsize::from(size);
        assert_eq!((window.ws_col, window.ws_row), (132, u16::MAX));
        assert_eq!((window.ws_xpixel, window.ws_ypixel), (u16::MAX, 0));
    }

    #[test]
    fn every_opcode_and_value_is_taken_or_passed_over() {
        let pty = crate::sys::open_pty().unwrap();
        let fresh = nix::sys::termios::tcgetattr(&pty.slave).unwrap();
        for opcode in 0..=u8::MAX {
            for value in [0, 1, 255, 256, u32::MAX] {
                apply(&mut fresh.clone(), &[(opcode, value)]);
            }
        }
        let mut same = fresh.clone();
        apply(
            &mut same,
            &[
                (0, 1),
                (11, 3),
                (17, 3),
                (37, 1),
                (52, 1),
                (160, 1),
                (255, 1),
                (1, 256),
            ],
        );
        assert_eq!(same, fresh);
    }

    #[test]
    #[expect(clippy::as_conversions, reason = "an enum of array indices")]
    fn modes_change_what_they_name() {
        let pty = crate::sys::open_pty().unwrap();
        let mut termios = nix::sys::termios::tcgetattr(&pty.slave).unwrap();
        apply(
            &mut termios,
            &[
                (1, 7),
                (2, 255),
                (53, 0),
                (51, 0),
                (36, 0),
                (42, 1),
                (70, 0),
                (90, 1),
                (129, 9600),
            ],
        );
        assert_eq!(
            termios.control_chars[SpecialCharacterIndices::VINTR as usize],
            7
        );
        assert_eq!(
            termios.control_chars[SpecialCharacterIndices::VQUIT as usize],
            0
        );
        assert!(
            !termios
                .local_flags
                .intersects(LocalFlags::ECHO | LocalFlags::ICANON)
        );
        assert!(!termios.input_flags.contains(InputFlags::ICRNL));
        assert!(termios.input_flags.contains(InputFlags::IUTF8));
        assert!(!termios.output_flags.contains(OutputFlags::OPOST));
        assert_eq!(
            termios.control_flags & ControlFlags::CSIZE,
            ControlFlags::CS7
        );
        assert_eq!(
            nix::sys::termios::cfgetospeed(&termios),
            nix::sys::termios::BaudRate::B9600
        );
    }
}
