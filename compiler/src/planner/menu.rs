//! Which blocks a channel may choose from.
//!
//! Rectangles from one pixel to the whole map, identity and zero. Two sides that cut a map of `n`
//! pixels into the same number of patches cost the same; only the smallest is offered. On large
//! maps that would still be some 500 rectangles: the most square ones are kept.

use std::collections::BTreeSet;
use std::str::FromStr;

use bcc_ir::Block;
use serde::{Deserialize, Serialize};

use crate::plan::{PlanError, parse_block};

/// Most rectangles that [`Menu::Full`] offers.
pub const MOST_SHAPES: usize = 100;

/// What a channel may choose from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Menu {
    /// Rectangles of all proportions, [`MOST_SHAPES`] at most (the most square ones), identity and
    /// zero: 27 choices on a 7x7 map, 51 on 14x14, 102 on 28x28 and more.
    #[default]
    Full,
    /// Rectangles whose sides are powers of two at most four times as long as each other, the
    /// whole map, identity and zero.
    Small,
    /// Squares, identity and zero.
    Squares,
    /// These blocks; rectangles larger than a map are cut to it.
    List(Vec<Block>),
}

/// A menu that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MenuError {
    /// A block that cannot be read.
    #[error("--menu: {0}; or name a menu: full, small or squares")]
    Block(#[from] PlanError),
    /// Nothing to choose from.
    #[error("--menu: the list is empty; name blocks such as 1x1,2x2,4x4,identity")]
    Empty,
}

impl FromStr for Menu {
    type Err = MenuError;

    /// Reads `full`, `small`, `squares` or a list of blocks with commas between them.
    fn from_str(text: &str) -> Result<Menu, MenuError> {
        match text.trim() {
            "full" => Ok(Menu::Full),
            "small" => Ok(Menu::Small),
            "squares" => Ok(Menu::Squares),
            "" => Err(MenuError::Empty),
            list => Ok(Menu::List(list.split(',').map(parse_block).collect::<Result<_, _>>()?)),
        }
    }
}

/// Sides that cut `n` pixels into different numbers of patches, the smallest of each.
fn sides(n: usize) -> Vec<usize> {
    let mut sides: Vec<usize> = (1..=n).collect();
    sides.dedup_by_key(|b| n.div_ceil(*b));
    sides
}

impl Menu {
    /// The choices on a map of `h x w` pixels, each once: rectangles by the number of their patches,
    /// most patches first, then identity, then zero.
    pub fn choices(&self, [h, w]: [usize; 2]) -> Vec<Block> {
        let pairs = |rows: &[usize], columns: &[usize]| -> Vec<(usize, usize)> {
            rows.iter().flat_map(|r| columns.iter().map(|c| (*r, *c))).collect()
        };
        let powers = |n: usize| -> Vec<usize> { (0..).map(|i| 1 << i).take_while(|p| *p < n).collect() };
        let mut shapes = match self {
            Menu::Full => {
                let mut all = pairs(&sides(h), &sides(w));
                // Proportions in per mille, so that the order is one of integers.
                all.sort_by_key(|&(r, c)| (1000 * r.max(c) / r.min(c), r * c, r));
                all.truncate(MOST_SHAPES);
                all.push((h, w));
                all
            }
            Menu::Small => {
                let mut all = pairs(&powers(h), &powers(w));
                all.retain(|&(r, c)| r.max(c) <= 4 * r.min(c));
                all.push((h, w));
                all
            }
            Menu::Squares => sides(h.max(w)).into_iter().map(|s| (s.min(h), s.min(w))).collect(),
            Menu::List(blocks) => {
                let cut = |b: &Block| match *b {
                    Block::Patch { h: r, w: c } => Some((r.min(h), c.min(w))),
                    Block::Identity | Block::Zero => None,
                };
                blocks.iter().filter_map(cut).collect()
            }
        };
        shapes.sort_by_key(|&(r, c)| (std::cmp::Reverse(h.div_ceil(r) * w.div_ceil(c)), r * c, r));
        shapes.dedup();
        let mut choices: Vec<Block> = shapes.into_iter().map(|(h, w)| Block::Patch { h, w }).collect();
        let whole: BTreeSet<Block> = match self {
            Menu::List(blocks) => blocks.iter().copied().collect(),
            _ => [Block::Identity, Block::Zero].into(),
        };
        choices.extend([Block::Identity, Block::Zero].into_iter().filter(|b| whole.contains(b)));
        choices
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_menus_have_the_sizes_they_state() {
        for (size, count) in [(1, 3), (7, 27), (14, 51), (28, 102)] {
            assert_eq!(Menu::Full.choices([size, size]).len(), count, "{size}");
        }
        for size in [56, 112, 256] {
            let count = Menu::Full.choices([size, size]).len();
            assert!((100..=103).contains(&count), "{size}: {count}");
        }
    }

    #[test]
    fn no_choice_comes_twice_and_no_two_sides_cut_alike() {
        for map in [[1, 1], [5, 5], [7, 9], [28, 28], [56, 20]] {
            for menu in [Menu::Full, Menu::Small, Menu::Squares] {
                let choices = menu.choices(map);
                let unique: BTreeSet<Block> = choices.iter().copied().collect();
                assert_eq!(unique.len(), choices.len());
                assert!(choices.contains(&Block::RELU) && choices.contains(&Block::Zero));
                let largest = choices.iter().any(|b| b.drelus(map[0], map[1]) == 1);
                assert!(largest, "{menu:?} {map:?}");
            }
        }
    }

    #[test]
    fn lists_are_cut_to_the_map() {
        let menu: Menu = "1x1,16x16, 8x32 ,identity".parse().expect("a list");
        let want = [Block::RELU, Block::Patch { h: 8, w: 8 }, Block::Identity];
        assert_eq!(menu.choices([8, 8]), want);
        assert!("2y2".parse::<Menu>().is_err() && "".parse::<Menu>().is_err());
    }
}
