//! The shape of the carry tree that compares by nibbles: which bits a level opens, and which products
//! of mask bits they need.

/// Groups of a carry level over `inputs` inputs: sizes of the chunks of up to four, lowest first.
/// A chunk of one passes to the next level unopened.
pub fn carry_groups(inputs: usize) -> Vec<usize> {
    (0..inputs.div_ceil(4)).map(|i| (inputs - 4 * i).min(4)).collect()
}

/// One opened bit of a carry level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CarryBit {
    /// Its XOR of products of input planes (plane numbers in the order `G0, G1, P1, ..`).
    pub terms: Vec<Vec<usize>>,
}

/// The opened bits of a carry level over `inputs` inputs and the products of mask bits (sets of
/// input planes, at least two each, sorted) that they need: groups in order, in a group first the
/// terms of `G` from the highest input down, then the one of `P` (no `P` for the lowest group);
/// within a term, sets by size, then lexicographically; a set that came before is not repeated.
pub fn carry_terms(inputs: usize) -> (Vec<CarryBit>, Vec<Vec<usize>>) {
    let generate = |i: usize| if i == 0 { 0 } else { 2 * i - 1 };
    let propagate = |i: usize| 2 * i;
    let mut bits = Vec::new();
    let mut products: Vec<Vec<usize>> = Vec::new();
    let mut first = 0;
    for (group, size) in carry_groups(inputs).into_iter().enumerate() {
        let top = first + size - 1;
        if size > 1 {
            let g: Vec<Vec<usize>> = (first..=top)
                .rev()
                .map(|i| {
                    let mut term: Vec<usize> = (i + 1..=top).map(propagate).collect();
                    term.push(generate(i));
                    term.sort_unstable();
                    term
                })
                .collect();
            bits.push(CarryBit { terms: g });
            if group > 0 {
                bits.push(CarryBit { terms: vec![(first..=top).map(propagate).collect()] });
            }
        }
        first = top + 1;
    }
    for bit in &bits {
        for term in &bit.terms {
            for size in 2..=term.len() {
                for set in subsets(term, size) {
                    if !products.contains(&set) {
                        products.push(set);
                    }
                }
            }
        }
    }
    (bits, products)
}

/// Subsets of `items` with `size` elements, in lexicographic order of positions.
pub fn subsets(items: &[usize], size: usize) -> Vec<Vec<usize>> {
    if size == 0 {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for (i, &head) in items.iter().enumerate() {
        for mut tail in subsets(&items[i + 1..], size - 1) {
            tail.insert(0, head);
            all.push(tail);
        }
    }
    all
}
