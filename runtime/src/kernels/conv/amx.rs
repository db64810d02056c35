//! Products of bytes by tile instructions (Intel AMX, "Intel 64 and IA-32 Architectures Software Developer's Manual",
//! volume 1, chapter 18): 16 rows times 16 columns of four times 16 bytes in depth at once. By assembly, as the compiler has
//! no stable names for them.
#![allow(unsafe_code)]

use std::arch::asm;
use std::arch::x86_64::__cpuid_count;
use std::sync::OnceLock;

use super::matrix::Operands;
use super::tile::{COLUMNS, Pair};
use super::window::{BYTE_ROWS, BYTE_SUMS, ByteStep, ByteSums, GROUP, Pattern, Window};

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

/// Operands that hold so many whole groups of entries.
struct Groups<'a> {
    count: usize,
    digits: [usize; 2],
    operands: Operands<'a>,
}

impl<'a> Groups<'a> {
    /// Operands of so many digits.
    #[inline(always)]
    fn new(digits: [usize; 2], operands: Operands<'a>) -> Groups<'a> {
        let count = operands.right.len() / (GROUP * digits[1]);
        assert!(operands.left.len() == count * digits[0] * GROUP * BYTE_ROWS, "operands are of the same depth");
        Groups { count, digits, operands }
    }
}

/// [`Tile::multiply_bytes`](super::tile::Tile::multiply_bytes). This thread must have [`Tiles`], without which the processor
/// refuses the instructions.
#[inline(always)]
pub fn multiply(window: &Window, digits: [usize; 2], operands: Operands<'_>, sums: &mut ByteSums) {
    let groups = Groups::new(digits, operands);
    if groups.count == 0 || window.steps.is_empty() {
        sums.0.as_flattened_mut().as_flattened_mut().fill(0);
        return;
    }
    match window.pattern {
        Pattern::Four => four(&groups, sums),
        Pattern::Two => two(&groups, sums),
        Pattern::Steps => by_steps(&window.steps, &groups, sums),
    }
}

/// For every group of entries the instructions `$products`, between those that clear four sums and those that store them.
/// `{l}` and `{r}` are the group's first left and right tile, digits follow; tiles 0 to 3 are the sums, the others are free.
/// There must be a group, `$products` must stay within it, and this thread must have [`Tiles`].
macro_rules! for_groups {
    ($groups:ident, $sums:ident, [$($products:literal),* $(,)?] $(, $($operands:tt)*)?) => {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            $($products,)*
            "add {l}, {left_group}",
            "add {r}, {right_group}",
            "dec {count}",
            "jnz 2b",
            "tilestored [{sums} + {row}], tmm0",
            "tilestored [{sums} + {row} + 1024], tmm1",
            "tilestored [{sums} + {row} + 2048], tmm2",
            "tilestored [{sums} + {row} + 3072], tmm3",
            l = inout(reg) $groups.operands.left.as_ptr() => _,
            r = inout(reg) $groups.operands.right.as_ptr() => _,
            count = inout(reg) $groups.count => _,
            left_group = in(reg) $groups.digits[0] * TILE,
            right_group = in(reg) $groups.digits[1] * TILE,
            row = in(reg) ROW,
            sums = in(reg) $sums.0.as_mut_ptr(),
            $($($operands)*)?
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

/// [`Pattern::Four`]: eight tiles are loaded for ten products.
#[inline(always)]
fn four(groups: &Groups<'_>, sums: &mut ByteSums) {
    assert!(groups.count > 0 && groups.digits[0] >= 4 && groups.digits[1] >= 4, "operands have the bytes");
    // SAFETY: there is a group, each has four left and four right tiles of 1024 bytes, and sums are four tiles. The
    // instructions are there, or they raise a signal.
    unsafe {
        for_groups!(
            groups,
            sums,
            [
                "tileloadd tmm4, [{r} + {row}]",
                "tileloadd tmm5, [{l} + {row} + 3072]",
                "tdpbuud tmm3, tmm5, tmm4",
                "tileloadd tmm5, [{l} + {row}]",
                "tdpbuud tmm0, tmm5, tmm4",
                "tileloadd tmm6, [{l} + {row} + 1024]",
                "tdpbuud tmm1, tmm6, tmm4",
                "tileloadd tmm7, [{l} + {row} + 2048]",
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
fn two(groups: &Groups<'_>, sums: &mut ByteSums) {
    assert!(groups.count > 0 && groups.digits[0] >= 2 && groups.digits[1] >= 4, "operands have the bytes");
    // SAFETY: as in `four`, with two left tiles.
    unsafe {
        for_groups!(
            groups,
            sums,
            [
                "tileloadd tmm4, [{r} + {row}]",
                "tileloadd tmm5, [{l} + {row}]",
                "tdpbuud tmm0, tmm5, tmm4",
                "tileloadd tmm6, [{l} + {row} + 1024]",
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

/// Any products.
#[inline(always)]
fn by_steps(steps: &[ByteStep], groups: &Groups<'_>, sums: &mut ByteSums) {
    let reach = |s: &ByteStep| -> [isize; 2] {
        let which = (s.unsigned | s.signed) & 0xf;
        [which.trailing_zeros() as isize, 63 - which.leading_zeros() as isize].map(|k| s.left + k)
    };
    let inside = steps.iter().all(|s| {
        let [first, last] = reach(s);
        let [left, right] = groups.digits;
        (s.unsigned | s.signed) != 0 && first >= 0 && last < left as isize && s.right < right
    });
    assert!(groups.count > 0 && !steps.is_empty() && inside, "steps name bytes that operands have");
    // SAFETY: there is a group and a step, and in each group the right tile and the left tiles that every step names are
    // inside, as just found; sums are four tiles. The instructions are there, or they raise a signal.
    unsafe {
        for_groups!(
            groups,
            sums,
            [
                "mov {step}, {steps}",
                "3:",
                "mov {a}, [{step} + {LEFT}]",
                "shl {a}, 10",
                "add {a}, {l}",
                "mov {b}, [{step} + {RIGHT}]",
                "shl {b}, 10",
                "add {b}, {r}",
                "tileloadd tmm4, [{b} + {row}]",
                "mov {b}, [{step} + {UNSIGNED}]",
                "test {b:l}, 1",
                "jz 4f",
                "tileloadd tmm5, [{a} + {row}]",
                "tdpbuud tmm0, tmm5, tmm4",
                "4:",
                "test {b:l}, 2",
                "jz 4f",
                "tileloadd tmm6, [{a} + {row} + 1024]",
                "tdpbuud tmm1, tmm6, tmm4",
                "4:",
                "test {b:l}, 4",
                "jz 4f",
                "tileloadd tmm7, [{a} + {row} + 2048]",
                "tdpbuud tmm2, tmm7, tmm4",
                "4:",
                "test {b:l}, 8",
                "jz 4f",
                "tileloadd tmm5, [{a} + {row} + 3072]",
                "tdpbuud tmm3, tmm5, tmm4",
                "4:",
                "mov {b}, [{step} + {SIGNED}]",
                "test {b}, {b}",
                "jz 5f",
                "test {b:l}, 1",
                "jz 4f",
                "tileloadd tmm6, [{a} + {row}]",
                "tdpbsud tmm0, tmm6, tmm4",
                "4:",
                "test {b:l}, 2",
                "jz 4f",
                "tileloadd tmm6, [{a} + {row} + 1024]",
                "tdpbsud tmm1, tmm6, tmm4",
                "4:",
                "test {b:l}, 4",
                "jz 4f",
                "tileloadd tmm6, [{a} + {row} + 2048]",
                "tdpbsud tmm2, tmm6, tmm4",
                "4:",
                "test {b:l}, 8",
                "jz 5f",
                "tileloadd tmm6, [{a} + {row} + 3072]",
                "tdpbsud tmm3, tmm6, tmm4",
                "5:",
                "add {step}, {STEP}",
                "cmp {step}, {end}",
                "jne 3b",
            ],
            steps = in(reg) steps.as_ptr(),
            end = in(reg) steps.as_ptr_range().end,
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
