//! Products of bytes by tile instructions (Intel AMX, "Intel 64 and IA-32 Architectures Software Developer's Manual",
//! volume 1, chapter 18): 16 rows times 16 columns of four times 16 bytes in depth at once. By assembly, as the compiler has
//! no stable names for them.
#![allow(unsafe_code)]

use std::arch::asm;
use std::arch::x86_64::__cpuid_count;
use std::sync::OnceLock;

use super::tile::{COLUMNS, Pair};
use super::window::{BYTE_ROWS, BYTE_SUMS, ByteOperands, ByteStep, ByteSums, GROUP, Pattern, Rows, Window};

/// Bytes of a tile, and of a row of one.
const TILE: usize = BYTE_ROWS * ROW;
const ROW: usize = 64;

// A tile of left entries is 16 rows of a group, one of right entries a group of rows of 16 columns.
const _: () = assert!(GROUP * size_of::<Pair>() == ROW && COLUMNS * size_of::<Pair>() == ROW);
const _: () = assert!(GROUP == 16 && BYTE_ROWS == 16 && BYTE_SUMS == 4);

/// Whether the processor has them and the system lets this process use them.
pub fn available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    // Leaf 7: AMX-TILE and AMX-INT8.
    const BITS: u32 = 1 << 24 | 1 << 25;
    *AVAILABLE.get_or_init(|| __cpuid_count(0, 0).eax >= 7 && __cpuid_count(7, 0).edx & BITS == BITS && permitted())
}

/// Linux lets a process use the tiles once it has asked; it need not keep 8 KiB more for threads of others.
#[cfg(target_os = "linux")]
fn permitted() -> bool {
    /// `ARCH_REQ_XCOMP_PERM` of `asm/prctl.h`.
    const REQUEST: libc::c_ulong = 0x1023;
    /// The state of the tiles' data.
    const TILE_DATA: libc::c_ulong = 18;
    // SAFETY: takes two integers and touches no memory of ours.
    unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST, TILE_DATA) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn permitted() -> bool {
    false
}

/// The tiles of this thread, set up as [`multiply`] uses them until it is dropped.
pub struct Tiles(());

impl Tiles {
    /// Sets them up, if they are [`available`].
    pub fn new() -> Option<Tiles> {
        /// As `LDTILECFG` reads it.
        #[repr(C, align(64))]
        struct Config {
            palette: u8,
            start: u8,
            reserved: [u8; 14],
            row_bytes: [u16; 16],
            rows: [u8; 16],
        }
        if !available() {
            return None;
        }
        let mut config = Config { palette: 1, start: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        config.row_bytes[..8].fill(ROW as u16);
        config.rows[..8].fill(BYTE_ROWS as u8);
        // SAFETY: the processor has the instruction, which reads 64 bytes.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const config, options(nostack, preserves_flags, readonly)) };
        Some(Tiles(()))
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: there are tiles. They are cleared, secrets among them.
        unsafe { asm!("tilerelease", options(nomem, nostack, preserves_flags)) };
    }
}

/// [`Tile::multiply_bytes`](super::tile::Tile::multiply_bytes). This thread must have [`Tiles`], without which the processor
/// refuses the instructions.
#[inline(always)]
pub fn multiply(window: &Window, operands: ByteOperands<'_>, sums: &mut ByteSums) {
    assert!(operands.inside(window.rows), "operands hold their groups");
    if operands.starts.is_empty() || window.steps.is_empty() {
        sums.0.as_flattened_mut().as_flattened_mut().fill(0);
        return;
    }
    match (window.pattern, window.rows) {
        (Pattern::Four, Rows::Channels) => four::<CHANNELS>(operands, sums),
        (Pattern::Four, Rows::Pixels) => four::<PIXELS>(operands, sums),
        (Pattern::Two, Rows::Channels) => two(operands, sums),
        (Pattern::Two, Rows::Pixels) => two_of_pixels(operands, sums),
        (Pattern::Steps, Rows::Channels) => by_steps(&window.steps, operands, sums),
        (Pattern::Steps, Rows::Pixels) => by_steps_of_pixels(&window.steps, operands, sums),
    }
}

/// Bytes from a left digit to the next.
const CHANNELS: usize = Rows::Channels.digit() * size_of::<Pair>();
const PIXELS: usize = Rows::Pixels.digit() * size_of::<Pair>();

/// For every group of entries the instructions `$products`, between those that clear four sums and those that store them.
/// `{l}` and `{r}` are the group's first left and right tile, digits follow, each `{DIGIT}` bytes behind the other and 1024;
/// `{left_row}` and `{row}` are the bytes of their rows; tiles 0 to 3 are the sums, the others are free. There must be a
/// group, operands must be [`inside`](ByteOperands::inside), `$products` must stay within digits that they have, and this
/// thread must have [`Tiles`].
macro_rules! for_groups {
    ($operands:ident, $digit:expr, $sums:ident, [$($products:expr),* $(,)?] $(, $($more:tt)*)?) => {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            "mov {l}, [{starts}]",
            "lea {l}, [{left} + 4 * {l}]",
            $($products,)*
            "add {starts}, 8",
            "add {r}, {right_group}",
            "dec {count}",
            "jnz 2b",
            "tilestored [{sums} + {row}], tmm0",
            "tilestored [{sums} + {row} + 1024], tmm1",
            "tilestored [{sums} + {row} + 2048], tmm2",
            "tilestored [{sums} + {row} + 3072], tmm3",
            l = out(reg) _,
            left = in(reg) $operands.left.as_ptr(),
            starts = inout(reg) $operands.starts.as_ptr() => _,
            r = inout(reg) $operands.right.as_ptr() => _,
            count = inout(reg) $operands.starts.len() => _,
            left_row = in(reg) $operands.row * size_of::<Pair>(),
            right_group = in(reg) $operands.digits[1] * TILE,
            row = in(reg) ROW,
            sums = in(reg) $sums.0.as_mut_ptr(),
            DIGIT = const $digit,
            $($($more)*)?
            out("tmm0") _,
            out("tmm1") _,
            out("tmm2") _,
            out("tmm3") _,
            out("tmm4") _,
            out("tmm5") _,
            out("tmm6") _,
            out("tmm7") _,
            options(nostack),
        )
    };
}

/// Whether there are operands of so many digits.
#[inline(always)]
fn have(operands: &ByteOperands<'_>, [left, right]: [usize; 2]) -> bool {
    !operands.starts.is_empty() && operands.digits[0] >= left && operands.digits[1] >= right
}

/// [`Pattern::Four`]: eight tiles are loaded for ten products.
#[inline(always)]
fn four<const DIGIT: usize>(operands: ByteOperands<'_>, sums: &mut ByteSums) {
    assert!(have(&operands, [4, 4]), "operands have the bytes");
    // SAFETY: there is a group, each has four left and four right tiles, which `multiply` has found inside, and sums are
    // four tiles. The instructions are there, or they raise a signal.
    unsafe {
        for_groups!(
            operands,
            DIGIT,
            sums,
            [
                "tileloadd tmm4, [{r} + {row}]",
                "tileloadd tmm5, [{l} + {left_row} + 3 * {DIGIT}]",
                "tdpbuud tmm3, tmm5, tmm4",
                "tileloadd tmm5, [{l} + {left_row}]",
                "tdpbuud tmm0, tmm5, tmm4",
                "tileloadd tmm6, [{l} + {left_row} + {DIGIT}]",
                "tdpbuud tmm1, tmm6, tmm4",
                "tileloadd tmm7, [{l} + {left_row} + 2 * {DIGIT}]",
                "tdpbuud tmm2, tmm7, tmm4",
                "tileloadd tmm4, [{r} + {row} + 1024]",
                "tdpbuud tmm1, tmm5, tmm4",
                "tdpbuud tmm2, tmm6, tmm4",
                "tdpbuud tmm3, tmm7, tmm4",
                "tileloadd tmm4, [{r} + {row} + 2048]",
                "tdpbuud tmm2, tmm5, tmm4",
                "tdpbuud tmm3, tmm6, tmm4",
                "tileloadd tmm4, [{r} + {row} + 3072]",
                "tdpbuud tmm3, tmm5, tmm4",
            ]
        );
    }
}

/// [`Pattern::Two`]: six tiles are loaded for seven products.
#[inline(always)]
fn two(operands: ByteOperands<'_>, sums: &mut ByteSums) {
    assert!(have(&operands, [2, 4]), "operands have the bytes");
    // SAFETY: as in `four`, with two left tiles.
    unsafe {
        for_groups!(
            operands,
            CHANNELS,
            sums,
            [
                "tileloadd tmm4, [{r} + {row}]",
                "tileloadd tmm5, [{l} + {left_row}]",
                "tdpbuud tmm0, tmm5, tmm4",
                "tileloadd tmm6, [{l} + {left_row} + {DIGIT}]",
                "tdpbsud tmm1, tmm6, tmm4",
                "tileloadd tmm7, [{r} + {row} + 1024]",
                "tdpbsud tmm2, tmm6, tmm7",
                "tdpbuud tmm1, tmm5, tmm7",
                "tileloadd tmm4, [{r} + {row} + 2048]",
                "tdpbsud tmm3, tmm6, tmm4",
                "tdpbuud tmm2, tmm5, tmm4",
                "tileloadd tmm7, [{r} + {row} + 3072]",
                "tdpbuud tmm3, tmm5, tmm7",
            ]
        );
    }
}

/// The same, weights on the right.
#[inline(always)]
fn two_of_pixels(operands: ByteOperands<'_>, sums: &mut ByteSums) {
    assert!(have(&operands, [4, 2]), "operands have the bytes");
    // SAFETY: as in `four`, with two right tiles.
    unsafe {
        for_groups!(
            operands,
            PIXELS,
            sums,
            [
                "tileloadd tmm4, [{r} + {row}]",
                "tileloadd tmm7, [{l} + {left_row} + 3 * {DIGIT}]",
                "tdpbuud tmm3, tmm7, tmm4",
                "tileloadd tmm5, [{l} + {left_row}]",
                "tdpbuud tmm0, tmm5, tmm4",
                "tileloadd tmm6, [{l} + {left_row} + {DIGIT}]",
                "tdpbuud tmm1, tmm6, tmm4",
                "tileloadd tmm7, [{l} + {left_row} + 2 * {DIGIT}]",
                "tdpbuud tmm2, tmm7, tmm4",
                "tileloadd tmm4, [{r} + {row} + 1024]",
                "tdpbusd tmm3, tmm7, tmm4",
                "tdpbusd tmm1, tmm5, tmm4",
                "tdpbusd tmm2, tmm6, tmm4",
            ]
        );
    }
}

/// A function for any products; `$signed` multiplies weights with a sign.
macro_rules! by_steps {
    ($(#[$doc:meta])* $name:ident, $digit:expr, $signed:literal) => {
        $(#[$doc])*
        #[inline(always)]
        fn $name(steps: &[ByteStep], operands: ByteOperands<'_>, sums: &mut ByteSums) {
            assert!(!operands.starts.is_empty() && !steps.is_empty(), "there are products");
            assert!(steps.iter().all(|s| s.inside(operands.digits)), "steps name bytes that operands have");
            let range = steps.as_ptr_range();
            let range = [range.start, range.end];
            // SAFETY: there is a group and a step, and in each group, which `multiply` has found inside, are the right tile
            // and the left tiles that every step names, as just found; sums are four tiles. The instructions are there, or
            // they raise a signal.
            unsafe {
                for_groups!(
                    operands,
                    $digit,
                    sums,
                    [
                        "mov {step}, [{range}]",
                        "3:",
                        "imul {a}, [{step} + {LEFT}], {DIGIT}",
                        "add {a}, {l}",
                        "mov {b}, [{step} + {RIGHT}]",
                        "shl {b}, 10",
                        "add {b}, {r}",
                        "tileloadd tmm4, [{b} + {row}]",
                        "mov {b}, [{step} + {UNSIGNED}]",
                        "test {b:l}, 1",
                        "jz 4f",
                        "tileloadd tmm5, [{a} + {left_row}]",
                        "tdpbuud tmm0, tmm5, tmm4",
                        "4:",
                        "test {b:l}, 2",
                        "jz 4f",
                        "tileloadd tmm6, [{a} + {left_row} + {DIGIT}]",
                        "tdpbuud tmm1, tmm6, tmm4",
                        "4:",
                        "test {b:l}, 4",
                        "jz 4f",
                        "tileloadd tmm7, [{a} + {left_row} + 2 * {DIGIT}]",
                        "tdpbuud tmm2, tmm7, tmm4",
                        "4:",
                        "test {b:l}, 8",
                        "jz 4f",
                        "tileloadd tmm5, [{a} + {left_row} + 3 * {DIGIT}]",
                        "tdpbuud tmm3, tmm5, tmm4",
                        "4:",
                        "mov {b}, [{step} + {SIGNED}]",
                        "test {b}, {b}",
                        "jz 5f",
                        "test {b:l}, 1",
                        "jz 4f",
                        "tileloadd tmm6, [{a} + {left_row}]",
                        concat!($signed, " tmm0, tmm6, tmm4"),
                        "4:",
                        "test {b:l}, 2",
                        "jz 4f",
                        "tileloadd tmm6, [{a} + {left_row} + {DIGIT}]",
                        concat!($signed, " tmm1, tmm6, tmm4"),
                        "4:",
                        "test {b:l}, 4",
                        "jz 4f",
                        "tileloadd tmm6, [{a} + {left_row} + 2 * {DIGIT}]",
                        concat!($signed, " tmm2, tmm6, tmm4"),
                        "4:",
                        "test {b:l}, 8",
                        "jz 5f",
                        "tileloadd tmm6, [{a} + {left_row} + 3 * {DIGIT}]",
                        concat!($signed, " tmm3, tmm6, tmm4"),
                        "5:",
                        "add {step}, {STEP}",
                        "cmp {step}, [{range} + 8]",
                        "jne 3b",
                    ],
                    range = in(reg) &raw const range,
                    step = out(reg) _,
                    a = out(reg) _,
                    b = out(reg) _,
                    LEFT = const std::mem::offset_of!(ByteStep, left),
                    RIGHT = const std::mem::offset_of!(ByteStep, right),
                    UNSIGNED = const std::mem::offset_of!(ByteStep, unsigned),
                    SIGNED = const std::mem::offset_of!(ByteStep, signed),
                    STEP = const size_of::<ByteStep>(),
                );
            }
        }
    };
}

by_steps!(
    /// Any products.
    by_steps,
    CHANNELS,
    "tdpbsud"
);
by_steps!(
    /// The same, weights on the right.
    by_steps_of_pixels,
    PIXELS,
    "tdpbusd"
);
