//! Static types of instructions: what each accepts and yields.

use super::{BlockMap, Inst, Program, Source, Type, carry_terms};

/// Largest number of elements of a buffer; keeps every size computation far from overflow.
pub(super) const MAX_LEN: usize = 1 << 36;

struct Operands<'a> {
    inputs: &'a [Type],
    outputs: &'a [Type],
}

type Check = Result<(), String>;

fn require(condition: bool, message: impl FnOnce() -> String) -> Check {
    if condition { Ok(()) } else { Err(message()) }
}

impl Operands<'_> {
    fn count(&self, inputs: usize, outputs: usize) -> Check {
        require(self.inputs.len() == inputs && self.outputs.len() == outputs, || {
            format!(
                "takes {inputs} operands and yields {outputs}, has {} and {}",
                self.inputs.len(),
                self.outputs.len()
            )
        })
    }

    fn ring(&self, i: usize) -> Result<(u8, usize), String> {
        match self.inputs[i] {
            Type::Ring { bits, len } => Ok((bits, len)),
            Type::Bits { .. } => Err(format!("operand {i} is no ring buffer")),
        }
    }

    fn bits(&self, i: usize) -> Result<(usize, usize), String> {
        match self.inputs[i] {
            Type::Bits { planes, len } => Ok((planes, len)),
            Type::Ring { .. } => Err(format!("operand {i} is no bit buffer")),
        }
    }

    fn out_ring(&self) -> Result<(u8, usize), String> {
        match self.outputs[0] {
            Type::Ring { bits, len } => Ok((bits, len)),
            Type::Bits { .. } => Err("the result is no ring buffer".into()),
        }
    }

    fn out_bits(&self, planes: usize, len: usize) -> Check {
        let want = Type::Bits { planes, len };
        require(self.outputs[0] == want, || format!("the result is {}, not {want}", self.outputs[0]))
    }

    /// Ring operands `0..n` and a ring result of `len` elements, not wider than any operand.
    fn narrowing(&self, n: usize, len: usize) -> Check {
        let (out, out_len) = self.out_ring()?;
        require(out_len == len, || format!("the result has {out_len} elements, not {len}"))?;
        for i in 0..n {
            let (bits, _) = self.ring(i)?;
            require(out <= bits, || format!("the result has {out} bits, operand {i} only {bits}"))?;
        }
        Ok(())
    }

    fn input_len(&self, i: usize, want: usize) -> Check {
        let len = self.inputs[i].len();
        require(len == want, || format!("operand {i} has {len} elements, not {want}"))
    }

    fn exact(&self, i: usize, want: Type) -> Check {
        require(self.inputs[i] == want, || format!("operand {i} is {}, not {want}", self.inputs[i]))
    }
}

fn product(shape: &[usize]) -> Result<usize, String> {
    let mut n = 1usize;
    for d in shape {
        n = n.checked_mul(*d).filter(|n| *n <= MAX_LEN).ok_or("a shape is too large")?;
    }
    Ok(n)
}

fn block_map(map: &BlockMap) -> Result<(usize, usize), String> {
    let pixels = product(&[map.blocks.len(), map.map[0], map.map[1]])?;
    require(pixels > 0, || "a block map without pixels".into())?;
    require(map.blocks.iter().all(|&[h, w]| h > 0 && w > 0), || "a block of no pixels".into())?;
    Ok((pixels, map.count()))
}

/// Checks an instruction's attributes and operand types; the error says what does not fit.
pub(super) fn check(program: &Program, inst: &Inst, inputs: &[Type], outputs: &[Type]) -> Check {
    let o = Operands { inputs, outputs };
    match inst {
        Inst::Draw { stream } => {
            o.count(0, 1)?;
            let s = program.streams.get(*stream as usize).ok_or("an unknown stream")?;
            require(outputs[0] == s.ty, || format!("stream \"{}\" yields {}, not {}", s.name, s.ty, outputs[0]))
        }
        Inst::Weight { index } => {
            o.count(0, 1)?;
            let w = program.weights.get(*index as usize).ok_or("an unknown weight")?;
            let (_, len) = o.out_ring()?;
            require(len == w.len, || format!("weight \"{}\" has {} elements, not {len}", w.name, w.len))
        }
        Inst::Input => {
            o.count(0, 1)?;
            let want = Type::Ring { bits: program.input.modulus, len: product(&program.input.shape)? };
            require(outputs[0] == want, || format!("the input is {want}, not {}", outputs[0]))
        }
        Inst::Output => {
            o.count(1, 0)?;
            o.exact(0, Type::Ring { bits: program.output.modulus, len: product(&program.output.shape)? })
        }
        Inst::Zero => o.count(0, 1),
        Inst::Send { message } => {
            let m = program.messages.get(*message as usize).ok_or("an unknown message")?;
            require(outputs.is_empty() && inputs == m.parts, || format!("the parts are not those of \"{}\"", m.name))
        }
        Inst::Receive { message } => {
            let m = program.messages.get(*message as usize).ok_or("an unknown message")?;
            require(inputs.is_empty() && outputs == m.parts, || format!("the parts are not those of \"{}\"", m.name))
        }
        Inst::Add | Inst::Sub => {
            o.count(2, 1)?;
            let (_, len) = o.ring(0)?;
            o.input_len(1, len)?;
            o.narrowing(2, len)
        }
        Inst::Reduce | Inst::AddConst { .. } => {
            o.count(1, 1)?;
            o.narrowing(1, o.ring(0)?.1)
        }
        Inst::Truncate { bits, carry } => {
            o.count(1, 1)?;
            let (k, len) = o.ring(0)?;
            require(*bits < k && *carry <= 1, || format!("cannot drop {bits} of {k} bits"))?;
            let want = Type::Ring { bits: k - bits, len };
            require(outputs[0] == want, || format!("the result is {}, not {want}", outputs[0]))
        }
        Inst::Join { shift } => {
            o.count(2, 1)?;
            let ((low, len), (high, _)) = (o.ring(0)?, o.ring(1)?);
            o.input_len(1, len)?;
            let (out, out_len) = o.out_ring()?;
            let fits = low <= *shift && *shift < 64 && shift + high >= out && out >= low && out_len == len;
            require(fits, || format!("cannot join {low} and {high} bits at {shift} into {out}"))
        }
        Inst::Conv(shape) => {
            o.count(2, 1)?;
            product(&[shape.in_channels, shape.input[0], shape.input[1]])?;
            product(&[shape.out_channels, shape.in_channels, shape.window.kernel[0], shape.window.kernel[1]])?;
            let sizes = (shape.input_len(), shape.weight_len(), shape.output_len());
            let (Some(x), Some(w), Some(y)) = sizes else { return Err(format!("{shape} has no output")) };
            o.input_len(0, x)?;
            o.input_len(1, w)?;
            o.narrowing(2, y)
        }
        Inst::AddBias => {
            o.count(2, 1)?;
            let ((_, len), (_, channels)) = (o.ring(0)?, o.ring(1)?);
            require(channels > 0 && len % channels == 0, || format!("{len} elements are not {channels} channels"))?;
            o.narrowing(2, len)
        }
        Inst::Scale { factors } => {
            o.count(1, 1)?;
            let (_, len) = o.ring(0)?;
            let whole = !factors.is_empty() && len % factors.len() == 0;
            require(whole, || format!("{len} elements are no maps of {}", factors.len()))?;
            o.narrowing(1, len)
        }
        Inst::SumPool(pool) => {
            o.count(1, 1)?;
            let n = product(&[pool.channels, pool.input[0], pool.input[1]])?;
            let [h, w] = pool.window.output(pool.input[0], pool.input[1]).ok_or("the window does not fit")?;
            o.input_len(0, n)?;
            o.narrowing(1, product(&[pool.channels, h, w])?)
        }
        Inst::Gather { outer, axis, inner, indices } => {
            o.count(1, 1)?;
            o.input_len(0, product(&[*outer, *axis, *inner])?)?;
            require(indices.iter().all(|i| i < axis), || format!("an index past an axis of {axis}"))?;
            o.narrowing(1, product(&[*outer, indices.len(), *inner])?)
        }
        Inst::Transpose { shape, perm } => {
            o.count(1, 1)?;
            let mut sorted = perm.clone();
            sorted.sort_unstable();
            require(sorted.iter().copied().eq(0..shape.len()), || format!("{perm:?} is no permutation"))?;
            let n = product(shape)?;
            o.input_len(0, n)?;
            o.narrowing(1, n)
        }
        Inst::Pad { channels, input: [h, w], pad: [t, l, b, r] } => {
            o.count(1, 1)?;
            o.input_len(0, product(&[*channels, *h, *w])?)?;
            let sides = [t, l, b, r].into_iter().all(|p| *p < MAX_LEN);
            require(sides, || "a padding is too large".into())?;
            o.narrowing(1, product(&[*channels, h + t + b, w + l + r])?)
        }
        Inst::Assemble { inner, sources } => {
            require(outputs.len() == 1 && *inner > 0, || "yields one tensor".into())?;
            let mut left: Vec<usize> = inputs.iter().map(|t| t.len()).collect();
            for s in sources {
                if let Source::Operand(i) = s {
                    let n = left.get_mut(usize::from(*i)).ok_or("an unknown operand")?;
                    *n = n.checked_sub(*inner).ok_or("an operand has too few channels")?;
                }
            }
            require(left.iter().all(|n| *n == 0), || "channels of an operand are left over".into())?;
            o.narrowing(inputs.len(), product(&[sources.len(), *inner])?)
        }
        Inst::Xor | Inst::Xnor => {
            o.count(2, 1)?;
            let (planes, len) = o.bits(0)?;
            o.exact(1, inputs[0])?;
            o.out_bits(planes, len)
        }
        Inst::Planes { picks } => {
            require(outputs.len() == 1 && !inputs.is_empty(), || "takes operands and yields one buffer".into())?;
            let (_, len) = o.bits(0)?;
            for i in 0..inputs.len() {
                o.bits(i)?;
                o.input_len(i, len)?;
            }
            for (i, p) in picks {
                let inside = inputs.get(usize::from(*i)).is_some_and(|t| match t {
                    Type::Bits { planes, .. } => (*p as usize) < *planes,
                    Type::Ring { .. } => false,
                });
                require(inside, || format!("no plane {p} in operand {i}"))?;
            }
            o.out_bits(picks.len(), len)
        }
        Inst::ToBits { low, count, pad } => {
            o.count(1, 1)?;
            let (bits, len) = o.ring(0)?;
            let inside = u32::from(*low) + u32::from(*count) <= u32::from(bits);
            require(inside, || format!("bits {low} + {count} of {bits}"))?;
            o.out_bits(usize::from(*count) + usize::from(*pad), len)
        }
        Inst::ToRing => {
            o.count(1, 1)?;
            let (planes, len) = o.bits(0)?;
            let (_, out) = o.out_ring()?;
            require(planes == 1 && out == len, || "takes one plane".into())
        }
        Inst::Wrap => {
            o.count(2, 1)?;
            let (_, len) = o.ring(0)?;
            o.exact(1, inputs[0])?;
            o.out_bits(1, len)
        }
        Inst::BlockSum(map) => {
            o.count(1, 1)?;
            let (pixels, blocks) = block_map(map)?;
            o.input_len(0, pixels)?;
            o.narrowing(1, blocks)
        }
        Inst::NibbleProducts => {
            o.count(1, 1)?;
            let (planes, len) = o.bits(0)?;
            require(planes > 0 && planes % 4 == 0, || "takes whole nibbles".into())?;
            o.out_bits(planes / 4 * 15, len)
        }
        Inst::NibbleOpen { .. } => {
            o.count(2, 1)?;
            let (planes, len) = o.bits(0)?;
            require(planes > 0 && planes % 4 == 0, || "takes whole nibbles".into())?;
            o.exact(1, Type::Bits { planes: planes / 4 * 15, len })?;
            o.out_bits(planes / 4 * 2 - 1, len)
        }
        Inst::CarryProducts { inputs: n } => {
            o.count(1, 1)?;
            let n = carry_inputs(*n)?;
            let (_, len) = o.bits(0)?;
            o.exact(0, Type::Bits { planes: 2 * n - 1, len })?;
            o.out_bits(carry_terms(n).1.len(), len)
        }
        Inst::CarryOpen { inputs: n, .. } => {
            o.count(3, 1)?;
            let n = carry_inputs(*n)?;
            let (bits, products) = carry_terms(n);
            let (_, len) = o.bits(0)?;
            o.exact(0, Type::Bits { planes: 2 * n - 1, len })?;
            o.exact(1, Type::Bits { planes: 2 * n - 1, len })?;
            o.exact(2, Type::Bits { planes: products.len(), len })?;
            o.out_bits(bits.len(), len)
        }
        Inst::Gate(map) => {
            o.count(2, 1)?;
            let (pixels, blocks) = block_map(map)?;
            o.exact(0, Type::Bits { planes: 1, len: blocks })?;
            let (bits, _) = o.ring(1)?;
            o.input_len(1, pixels)?;
            let (out, len) = o.out_ring()?;
            require(out >= bits && len == pixels, || format!("cannot gate {bits} bits into {out}"))
        }
        Inst::Select { map, .. } => {
            let (pixels, blocks) = block_map(map)?;
            require(outputs.len() == 1 && (inputs.len() == 5 || inputs.len() == 8), || "takes 5 or 8 operands".into())?;
            let (wide, len) = o.out_ring()?;
            let (k, _) = o.ring(0)?;
            require(k >= 2 && k <= wide && len == pixels, || format!("cannot select {k} bits into {wide}"))?;
            require((k < wide) == (inputs.len() == 8), || "the lift's shares are there only if k < L".into())?;
            o.exact(0, Type::Ring { bits: k, len: pixels })?;
            o.exact(1, Type::Bits { planes: 1, len: blocks })?;
            o.exact(2, Type::Ring { bits: k, len: pixels })?;
            o.exact(3, Type::Ring { bits: wide, len: blocks })?;
            o.exact(4, Type::Ring { bits: wide, len: pixels })?;
            for i in 5..inputs.len() {
                o.exact(i, Type::Ring { bits: wide - k, len: pixels })?;
            }
            Ok(())
        }
        Inst::LiftPublic => {
            o.count(1, 1)?;
            let (k, n) = o.ring(0)?;
            let (wide, len) = o.out_ring()?;
            require(k >= 2 && k <= wide && n == len, || format!("cannot lift {k} bits to {wide}"))
        }
        Inst::LiftCorrection => {
            o.count(3, 1)?;
            let (_, len) = o.ring(1)?;
            o.exact(0, Type::Bits { planes: 1, len })?;
            o.exact(2, inputs[1])?;
            require(outputs[0] == inputs[1], || "the result has the operands' type".into())
        }
    }
}

fn carry_inputs(n: u8) -> Result<usize, String> {
    // 64 bits are 16 nibbles.
    if (2..=16).contains(&n) { Ok(usize::from(n)) } else { Err(format!("a carry level over {n} inputs")) }
}
