//! Where a party's time goes.

use std::time::{Duration, Instant};

use bcc_ir::program::{Phase, Program};

/// Seconds that a party computed, by phase and layer of the program: what its instructions took, all together, less
/// what it waited for messages.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Meter {
    layers: [Vec<f64>; 3],
    /// When counting went on last, and what had been waited then.
    last: Option<(Instant, Duration)>,
}

impl Meter {
    /// Nothing yet.
    pub fn new(program: &Program) -> Self {
        Meter { layers: Phase::ALL.map(|_| vec![0.0; program.layers.len()]), last: None }
    }

    /// Counts from here; `waited` is all the time waited so far, here and below.
    pub fn start(&mut self, waited: Duration) {
        self.last = Some((Instant::now(), waited));
    }

    /// Counts the time since the last call for a layer.
    pub fn count(&mut self, phase: Phase, layer: u32, waited: Duration) {
        let now = Instant::now();
        if let (Some((then, before)), Some(l)) = (self.last, self.layers[phase.index()].get_mut(layer as usize)) {
            *l += now.duration_since(then).saturating_sub(waited.saturating_sub(before)).as_secs_f64();
        }
        self.last = Some((now, waited));
    }

    /// Counts the time since the last call for several layers, by what each of them took of it.
    pub fn share(&mut self, phase: Phase, spent: &[(u32, Duration)], waited: Duration) {
        let now = Instant::now();
        let all: f64 = spent.iter().map(|(_, took)| took.as_secs_f64()).sum();
        if let Some((then, before)) = self.last
            && all > 0.0
        {
            let own = now.duration_since(then).saturating_sub(waited.saturating_sub(before)).as_secs_f64();
            for (layer, took) in spent {
                if let Some(l) = self.layers[phase.index()].get_mut(*layer as usize) {
                    *l += own * took.as_secs_f64() / all;
                }
            }
        }
        self.last = Some((now, waited));
    }

    /// Seconds by layer.
    pub fn layers(&self, phase: Phase) -> &[f64] {
        &self.layers[phase.index()]
    }
}
