//! Pairs of changes: what one frees, the other spends.

use super::dual::Prices;
use super::model::{Fixed, Model};
use super::primal::{allowed, changed};

/// Changes that take part, those closest to the prices first: of all classes, and of the classes of
/// one row.
const MOVES: (usize, usize) = (2000, 300);
/// Most rounds.
const ROUNDS: usize = 30;

/// A change of one class, away from the current choice.
struct Move {
    class: usize,
    to: usize,
    /// By how much it moves away from the Lagrangian's minimum.
    reduced: f64,
    /// Change of the loss.
    loss: f64,
}

/// Improves a choice that fits, by the best pairs of changes until there are none: within the
/// classes of each row that counts only some, then among all.
pub(super) fn improve(model: &Model, fixed: &Fixed, prices: &Prices, chosen: &mut [usize]) {
    let mut counted = vec![Vec::new(); model.rows.len()];
    for (i, class) in model.classes.iter().enumerate() {
        class.rows.iter().for_each(|row| counted[*row].push(i));
    }
    for classes in counted.iter().filter(|c| !c.is_empty() && 2 * c.len() <= model.classes.len()) {
        among(model, fixed, prices, chosen, classes, MOVES.1);
    }
    let all: Vec<usize> = (0..model.classes.len()).collect();
    among(model, fixed, prices, chosen, &all, MOVES.0);
}

/// Pairs within some of the classes.
fn among(model: &Model, fixed: &Fixed, prices: &Prices, chosen: &mut [usize], classes: &[usize], most: usize) {
    let rows = model.rows.len();
    let mut usage = model.usage(chosen);
    for _ in 0..ROUNDS {
        let moves = moves(model, fixed, prices, chosen, classes, most);
        let mut costs = vec![0; moves.len() * rows];
        for (at, m) in moves.iter().enumerate() {
            let own = &mut costs[at * rows..(at + 1) * rows];
            changed(&model.classes[m.class], chosen[m.class], m.to).for_each(|(r, c)| own[r] = c);
        }
        let left: Vec<i64> = model.rows.iter().zip(&usage).map(|(row, u)| row.limit - u).collect();
        // By ascending change of loss, partners of a move end where the sum is no gain.
        let mut order: Vec<usize> = (0..moves.len()).collect();
        order.sort_by(|&a, &b| moves[a].loss.total_cmp(&moves[b].loss).then(a.cmp(&b)));
        let mut pairs = Vec::new();
        for (at, &a) in order.iter().enumerate() {
            let (first, own) = (&moves[a], &costs[a * rows..(a + 1) * rows]);
            if first.loss >= 0.0 {
                break;
            }
            let partner =
                order[at + 1..].iter().copied().take_while(|&b| first.loss + moves[b].loss < 0.0).find(|&b| {
                    let other = &costs[b * rows..(b + 1) * rows];
                    moves[b].class != first.class
                        && own.iter().zip(other).zip(&left).all(|((x, y), left)| x + y <= *left)
                });
            pairs.extend(partner.map(|b| (first.loss + moves[b].loss, a, b)));
        }
        pairs.sort_by(|x, y| x.0.total_cmp(&y.0));
        let mut improved = false;
        let mut touched = vec![false; model.classes.len()];
        let mut left = left;
        for (gain, a, b) in pairs {
            let (x, y) = (&moves[a], &moves[b]);
            let (c, d) = (&costs[a * rows..(a + 1) * rows], &costs[b * rows..(b + 1) * rows]);
            let fits = c.iter().zip(d).zip(&left).all(|((c, d), left)| c + d <= *left);
            // A gain below rounding could go round in circles.
            let real = gain < -1e-15 * (x.loss.abs() + y.loss.abs());
            if !fits || !real || touched[x.class] || touched[y.class] {
                continue;
            }
            left.iter_mut().zip(c.iter().zip(d)).for_each(|(left, (c, d))| *left -= c + d);
            (chosen[x.class], chosen[y.class]) = (x.to, y.to);
            (touched[x.class], touched[y.class]) = (true, true);
            improved = true;
        }
        if !improved {
            return;
        }
        usage = model.usage(chosen);
    }
}

/// The changes that move least away from the Lagrangian's minimum.
fn moves(model: &Model, fixed: &Fixed, prices: &Prices, chosen: &[usize], classes: &[usize], most: usize) -> Vec<Move> {
    let mut moves = Vec::new();
    for &i in classes {
        let (class, from) = (&model.classes[i], chosen[i]);
        let at = class.price(from, &prices.prices);
        let others = (0..class.options.len()).filter(|&j| j != from && allowed(class, j, fixed));
        moves.extend(others.map(|j| Move {
            class: i,
            to: j,
            reduced: class.price(j, &prices.prices) - at,
            loss: class.options[j].loss - class.options[from].loss,
        }));
    }
    let order = |a: &Move, b: &Move| a.reduced.total_cmp(&b.reduced).then(a.class.cmp(&b.class)).then(a.to.cmp(&b.to));
    if moves.len() > most {
        moves.select_nth_unstable_by(most, order);
        moves.truncate(most);
    }
    moves.sort_unstable_by(order);
    moves
}
