//! Products of bytes by tile instructions (AMX), on operands in the first-level cache.
#![allow(unsafe_code)]

use bcc_runtime::kernels;

/// Whether the kernels use them, which then have asked the system for them.
pub fn available() -> bool {
    cfg!(target_arch = "x86_64") && kernels::available().iter().any(|set| set.name() == "amx")
}

/// Steps of a call: each loads a right tile, and four left ones that are multiplied with it.
const STEPS: usize = 256;
/// Products of bytes in a call.
pub const PRODUCTS: usize = STEPS * 4 * 16 * 16 * 64;

/// Four left tiles and four right ones.
#[repr(align(64))]
pub struct Operands {
    left: [[u8; 1024]; 4],
    right: [[u8; 1024]; 4],
}

impl Operands {
    /// Small bytes.
    pub fn new() -> Box<Operands> {
        Box::new(Operands { left: [[3; 1024]; 4], right: [[5; 1024]; 4] })
    }
}

/// Sums of products, of which the first one counts. Only if they are [`available`].
#[cfg(target_arch = "x86_64")]
pub fn sums(o: &Operands) -> i32 {
    #[repr(align(64))]
    struct Aligned<const N: usize>([u8; N]);
    let mut config = Aligned([0u8; 64]);
    config.0[0] = 1;
    for tile in 0..8 {
        (config.0[16 + 2 * tile], config.0[48 + tile]) = (64, 16);
    }
    let mut out = Aligned([0u8; 1024]);
    // SAFETY: the instructions are there. Eight tiles of 16 rows of 64 bytes; those that are loaded are inside the operands,
    // what is stored is as long as `out`.
    unsafe {
        std::arch::asm!(
            "ldtilecfg [{config}]",
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            "tileloadd tmm4, [{right} + {row}]",
            "tileloadd tmm5, [{left} + {row}]",
            "tdpbuud tmm0, tmm5, tmm4",
            "tileloadd tmm6, [{left} + {row} + 1024]",
            "tdpbuud tmm1, tmm6, tmm4",
            "tileloadd tmm7, [{left} + {row} + 2048]",
            "tdpbuud tmm2, tmm7, tmm4",
            "tileloadd tmm5, [{left} + {row} + 3072]",
            "tdpbuud tmm3, tmm5, tmm4",
            "dec {steps}",
            "jnz 2b",
            "tilestored [{out} + {row}], tmm0",
            "tilerelease",
            config = in(reg) config.0.as_ptr(),
            left = in(reg) o.left.as_ptr(),
            right = in(reg) o.right.as_ptr(),
            row = in(reg) 64usize,
            steps = inout(reg) STEPS => _,
            out = in(reg) out.0.as_mut_ptr(),
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
    i32::from_le_bytes([out.0[0], out.0[1], out.0[2], out.0[3]])
}

/// No such processor has them.
#[cfg(not(target_arch = "x86_64"))]
pub fn sums(_: &Operands) -> i32 {
    0
}
