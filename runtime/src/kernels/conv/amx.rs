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

/// [`Tile::multiply_bytes`](super::tile::Tile::multiply_bytes). This thread must have [`Tiles`], without which the processor
/// refuses the instructions.
#[inline(always)]
pub fn multiply(window: &Window, digits: [usize; 2], operands: Operands<'_>, sums: &mut ByteSums) {
    let blocks = operands.right.len() / (GROUP * digits[1]);
    assert!(operands.left.len() == blocks * digits[0] * GROUP * BYTE_ROWS, "operands are of the same depth");
    if blocks == 0 || window.steps.is_empty() {
        sums.0.as_flattened_mut().as_flattened_mut().fill(0);
        return;
    }
    match window.pattern {
        Pattern::Four => four(blocks, digits, operands, sums),
        Pattern::Two => two(blocks, digits, operands, sums),
        Pattern::Steps => by_steps(&window.steps, blocks, digits, operands, sums),
    }
}

/// Products of a fixed pattern: for every group of entries those of `$products`, between a prologue that clears the four
/// sums and an epilogue that stores them. `{l}` and `{r}` are the group's first left and right tile, digits follow.
macro_rules! pattern {
    ($(#[$doc:meta])* $name:ident, [$left:literal, $right:literal], $($products:literal),*) => {
        $(#[$doc])*
        #[inline(always)]
        fn $name(blocks: usize, digits: [usize; 2], operands: Operands<'_>, ByteSums(sums): &mut ByteSums) {
            assert!(blocks > 0 && digits[0] >= $left && digits[1] >= $right, "operands have the bytes");
            assert!(operands.left.len() >= blocks * digits[0] * GROUP * BYTE_ROWS, "and so many groups");
            assert!(operands.right.len() >= blocks * digits[1] * GROUP, "and so many groups");
            // SAFETY: each of `blocks` groups has the tiles of 1024 bytes that are named, as just found; sums are four tiles.
            // The instructions are there, or they raise a signal.
            unsafe {
                asm!(
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "tilezero tmm2",
                    "tilezero tmm3",
                    "2:",
                    $($products,)*
                    "add {l}, {left_block}",
                    "add {r}, {right_block}",
                    "dec {blocks}",
                    "jnz 2b",
                    "tilestored [{sums} + {row}], tmm0",
                    "tilestored [{sums} + {row} + 1024], tmm1",
                    "tilestored [{sums} + {row} + 2048], tmm2",
                    "tilestored [{sums} + {row} + 3072], tmm3",
                    l = inout(reg) operands.left.as_ptr() => _,
                    r = inout(reg) operands.right.as_ptr() => _,
                    blocks = inout(reg) blocks => _,
                    left_block = in(reg) digits[0] * TILE,
                    right_block = in(reg) digits[1] * TILE,
                    row = in(reg) ROW,
                    sums = in(reg) sums.as_mut_ptr(),
                    out("tmm0") _,
                    out("tmm1") _,
                    out("tmm2") _,
                    out("tmm3") _,
                    out("tmm4") _,
                    out("tmm5") _,
                    out("tmm6") _,
                    out("tmm7") _,
                    options(nostack),
                );
            }
        }
    };
}

pattern!(
    /// [`Pattern::Four`]: eight tiles are loaded for ten products.
    four,
    [4, 4],
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
    "tdpbuud tmm3, tmm5, tmm4"
);

pattern!(
    /// [`Pattern::Two`]: six tiles are loaded for seven products.
    two,
    [2, 4],
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
    "tdpbuud tmm3, tmm5, tmm7"
);

/// Any products.
#[inline(always)]
fn by_steps(
    steps: &[ByteStep],
    blocks: usize,
    digits: [usize; 2],
    Operands { left, right }: Operands<'_>,
    ByteSums(sums): &mut ByteSums,
) {
    let reach = |s: &ByteStep| -> [isize; 2] {
        let which = (s.unsigned | s.signed) & 0xf;
        [which.trailing_zeros() as isize, 63 - which.leading_zeros() as isize].map(|k| s.left + k)
    };
    let inside = steps.iter().all(|s| {
        let [first, last] = reach(s);
        (s.unsigned | s.signed) != 0 && first >= 0 && last < digits[0] as isize && s.right < digits[1]
    });
    assert!(blocks > 0 && inside, "steps name bytes that operands have");
    assert!(left.len() >= blocks * digits[0] * GROUP * BYTE_ROWS, "operands have so many groups");
    assert!(right.len() >= blocks * digits[1] * GROUP, "operands have so many groups");
    // SAFETY: for each of `blocks` groups of entries and each step the right tile and the left tiles that it names, of
    // 1024 bytes each, are inside the operands, as just found; sums are four tiles. The instructions are there, or they
    // raise a signal.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            "mov {step}, {steps}",
            "3:",
            "mov {l}, [{step} + {LEFT}]",
            "shl {l}, 10",
            "add {l}, {left}",
            "mov {r}, [{step} + {RIGHT}]",
            "shl {r}, 10",
            "add {r}, {right}",
            "tileloadd tmm4, [{r} + {row}]",
            "mov {r}, [{step} + {UNSIGNED}]",
            "test {r:l}, 1",
            "jz 4f",
            "tileloadd tmm5, [{l} + {row}]",
            "tdpbuud tmm0, tmm5, tmm4",
            "4:",
            "test {r:l}, 2",
            "jz 4f",
            "tileloadd tmm6, [{l} + {row} + 1024]",
            "tdpbuud tmm1, tmm6, tmm4",
            "4:",
            "test {r:l}, 4",
            "jz 4f",
            "tileloadd tmm7, [{l} + {row} + 2048]",
            "tdpbuud tmm2, tmm7, tmm4",
            "4:",
            "test {r:l}, 8",
            "jz 4f",
            "tileloadd tmm5, [{l} + {row} + 3072]",
            "tdpbuud tmm3, tmm5, tmm4",
            "4:",
            "mov {r}, [{step} + {SIGNED}]",
            "test {r}, {r}",
            "jz 5f",
            "test {r:l}, 1",
            "jz 4f",
            "tileloadd tmm6, [{l} + {row}]",
            "tdpbsud tmm0, tmm6, tmm4",
            "4:",
            "test {r:l}, 2",
            "jz 4f",
            "tileloadd tmm6, [{l} + {row} + 1024]",
            "tdpbsud tmm1, tmm6, tmm4",
            "4:",
            "test {r:l}, 4",
            "jz 4f",
            "tileloadd tmm6, [{l} + {row} + 2048]",
            "tdpbsud tmm2, tmm6, tmm4",
            "4:",
            "test {r:l}, 8",
            "jz 5f",
            "tileloadd tmm6, [{l} + {row} + 3072]",
            "tdpbsud tmm3, tmm6, tmm4",
            "5:",
            "add {step}, {STEP}",
            "cmp {step}, {end}",
            "jne 3b",
            "add {left}, {left_block}",
            "add {right}, {right_block}",
            "dec {blocks}",
            "jnz 2b",
            "tilestored [{sums} + {row}], tmm0",
            "tilestored [{sums} + {row} + 1024], tmm1",
            "tilestored [{sums} + {row} + 2048], tmm2",
            "tilestored [{sums} + {row} + 3072], tmm3",
            steps = in(reg) steps.as_ptr(),
            end = in(reg) steps.as_ptr_range().end,
            step = out(reg) _,
            l = out(reg) _,
            r = out(reg) _,
            left = inout(reg) left.as_ptr() => _,
            right = inout(reg) right.as_ptr() => _,
            blocks = inout(reg) blocks => _,
            left_block = in(reg) digits[0] * TILE,
            right_block = in(reg) digits[1] * TILE,
            row = in(reg) ROW,
            sums = in(reg) sums.as_mut_ptr(),
            LEFT = const std::mem::offset_of!(ByteStep, left),
            RIGHT = const std::mem::offset_of!(ByteStep, right),
            UNSIGNED = const std::mem::offset_of!(ByteStep, unsigned),
            SIGNED = const std::mem::offset_of!(ByteStep, signed),
            STEP = const size_of::<ByteStep>(),
            out("tmm0") _,
            out("tmm1") _,
            out("tmm2") _,
            out("tmm3") _,
            out("tmm4") _,
            out("tmm5") _,
            out("tmm6") _,
            out("tmm7") _,
            options(nostack),
        );
    }
}
