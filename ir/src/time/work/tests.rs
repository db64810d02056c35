//! Work counted by hand.

use super::*;
use crate::geometry::Window;

fn ring(bits: u8, len: usize) -> Type {
    Type::Ring { bits, len }
}

fn planes(planes: usize, len: usize) -> Type {
    Type::Bits { planes, len }
}

#[test]
fn kinds_are_numbered_and_named_in_order() {
    for (i, k) in Kind::ALL.into_iter().enumerate() {
        assert_eq!(k.index(), i);
        assert_eq!(ron::to_string(&k).as_deref(), Ok(k.name()));
    }
}

#[test]
fn convolutions_by_hand() {
    // 3x3 over 2 channels of 5x6, padded to keep the size, to 8 channels.
    let window = Window { pad: [1; 4], ..Window::new([3, 3]) };
    let mut shape = ConvShape { in_channels: 2, input: [5, 6], out_channels: 8, groups: 1, window };
    let of = |shape: ConvShape, bits| work(&Inst::Conv(shape), &[], &[ring(bits, 0)], Width::Wide, false);
    let weights = 8 * 2 * 9;
    for (bits, products) in [(16u8, 1), (32, 3), (40, 6), (64, 19)] {
        let want = Work::of(Kind::DigitMacs, products * weights * 30)
            .and(Kind::ConvTaps, 2 * 2 * 9 * 30)
            .and(Kind::ConvReads, weights * u64::from(bits.div_ceil(16)))
            .and(Kind::ConvSums, 2 * 8 * 30);
        assert_eq!(of(shape, bits), want);
    }
    for (narrow, kind, halves) in [(false, Kind::ConvMacs, 2), (true, Kind::NarrowMacs, 1)] {
        let got = work(&Inst::Conv(shape), &[], &[ring(32, 0)], Width::Narrow, narrow);
        let want = Work::of(kind, weights * 30)
            .and(Kind::ConvTaps, 2 * 9 * 30)
            .and(Kind::ConvReads, halves * weights)
            .and(Kind::ConvSums, 8 * 30);
        assert_eq!(got, want);
    }
    // Two groups of four outputs: half the weights, the same taps.
    shape.groups = 2;
    let got = of(shape, 16);
    assert_eq!((got.units(Kind::DigitMacs), got.units(Kind::ConvTaps)), (8 * 9 * 30, 2 * 2 * 9 * 30));
    // Many channels, of which each of four groups has few.
    let taps = |groups| {
        let got = of(ConvShape { in_channels: 4 * DEEP - 4, out_channels: 16, groups, ..shape }, 16);
        [Kind::ConvTaps, Kind::DeepTaps].map(|kind| got.units(kind))
    };
    let all = 2 * (4 * DEEP as u64 - 4) * 9 * 30;
    assert_eq!([taps(1), taps(4)], [[0, all], [all, 0]]);
    shape.out_channels = 2;
    assert_eq!(of(shape, 32), Work::of(Kind::DepthwiseMacs, 2 * 2 * 9 * 30));
    assert_eq!(of(ConvShape::dense(64, 10), 32), Work::of(Kind::DenseMacs, 2 * 640));
    let pool = PoolShape { channels: 3, input: [4, 4], window: Window::new([4, 4]), counted: [0; 4] };
    assert_eq!(work(&Inst::SumPool(pool), &[], &[], Width::Narrow, false), Work::of(Kind::PoolTaps, 48));
}

#[test]
fn passes_draws_and_messages_by_hand() {
    let one = |inst: Inst, inputs: &[Type], out: Type| work(&inst, inputs, &[out], Width::Narrow, false);
    assert_eq!(one(Inst::Add, &[ring(20, 7); 2], ring(20, 7)), Work::of(Kind::Elements, 7));
    assert_eq!(
        one(Inst::Draw { stream: 0 }, &[], ring(20, 7)),
        Work::of(Kind::DrawnBytes, 21).and(Kind::DrawnElements, 7)
    );
    assert_eq!(one(Inst::Draw { stream: 0 }, &[], planes(3, 65)), Work::of(Kind::DrawnBytes, 3 * 2 * 8));
    assert_eq!(one(Inst::Xor, &[planes(3, 65); 2], planes(3, 65)), Work::of(Kind::BitWords, 6));
    let apart = Inst::ToBits { low: 0, count: 3, pad: 1 };
    assert_eq!(one(apart, &[ring(20, 70)], planes(4, 70)), Work::of(Kind::ToBits, 70));
    let parts = [ring(20, 7), planes(2, 9)];
    assert_eq!(work(&Inst::Send { message: 0 }, &parts, &[], Width::Narrow, false), Work::of(Kind::SentBytes, 18 + 4));
    assert_eq!(
        work(&Inst::Receive { message: 0 }, &[], &parts, Width::Narrow, false),
        Work::of(Kind::ReceivedBytes, 22)
    );
}

#[test]
fn gates_and_carries_by_hand() {
    // 5 rows of 3 runs (the last one of a single pixel), and single pixels, which have none.
    let map = BlockMap { map: [5, 7], blocks: vec![[2, 3], [1, 1]] };
    let want = Work::of(Kind::SelectElements, 70).and(Kind::SelectRuns, 15);
    assert_eq!(work(&Inst::Select { map, public: true }, &[], &[ring(32, 70)], Width::Narrow, false), want);
    let nibbles = work(&Inst::NibbleProducts, &[planes(8, 65)], &[planes(30, 65)], Width::Narrow, false);
    assert_eq!(nibbles, Work::of(Kind::NibbleProducts, 2 * 2));
    // Two inputs: G = G1 + P1 G0, one product of two bits. Opened: the single G1 in two ways
    // (itself: 1 operation, its public bit: 2), P1 G0 in four (1, 2, 2 and 3 operations).
    let level = Inst::CarryProducts { inputs: 2 };
    assert_eq!(
        work(&level, &[planes(3, 64)], &[planes(1, 64)], Width::Narrow, false),
        Work::of(Kind::CarryProducts, 2)
    );
    let level = Inst::CarryOpen { inputs: 2, public: true };
    let operands = [planes(3, 65), planes(3, 65), planes(1, 65)];
    assert_eq!(
        work(&level, &operands, &[planes(1, 65)], Width::Narrow, false),
        Work::of(Kind::CarryOpens, 2 * (3 + 8))
    );
}

#[test]
fn wide_elements_count_twice() {
    let work = Work::of(Kind::DrawnBytes, 21).and(Kind::DrawnElements, 7);
    assert_eq!(work.held(Width::Narrow), work);
    assert_eq!(work.held(Width::Wide), Work::of(Kind::DrawnBytes, 21).and(Kind::DrawnElements, 14));
}

#[test]
fn threads_share_large_work_only() {
    assert_eq!(Work::of(Kind::ToBits, 1 << 40).parallelism(8), 1);
    assert_eq!(Work::of(Kind::DrawnElements, 3 << 14).parallelism(8), 3);
    assert_eq!(Work::of(Kind::DrawnElements, 100).parallelism(8), 1);
    assert_eq!(Work::of(Kind::ConvMacs, u64::MAX).parallelism(2), 2);
}
