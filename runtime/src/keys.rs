//! Secrets of a session and what is derived from them.
//!
//! Every party has one 32-byte seed per session, from the system. From it comes one X25519 secret
//! per link; the shared secret of a link and the transcript of its greeting give all keys of the
//! pair, each under its own BLAKE3 `derive_key` context. The third party sees neither.

use bcc_ir::program::Role;
use x25519_dalek::{X25519_BASEPOINT_BYTES, x25519};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::prg::Key;

/// A party's seed for one session. Erased when dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Secrets([u8; 32]);

impl Secrets {
    /// A fresh seed from the system.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed)?;
        Ok(Secrets(seed))
    }

    /// A given seed, for tests that compare transcripts. A seed that is used twice or that someone
    /// else knows gives all data away.
    pub fn insecure_from_seed(seed: [u8; 32]) -> Self {
        Secrets(seed)
    }

    /// The X25519 secret for the link to `peer`.
    fn ephemeral(&self, peer: Role) -> Zeroizing<[u8; 32]> {
        derive("bcc runtime v1 x25519 ephemeral secret", &[&self.0, &[peer as u8]])
    }

    /// The public key for the link to `peer`.
    pub fn public(&self, peer: Role) -> [u8; 32] {
        x25519(*self.ephemeral(peer), X25519_BASEPOINT_BYTES)
    }

    /// A random name for a new setup. It is public.
    pub fn setup_id(&self) -> [u8; 16] {
        first_half(&derive("bcc runtime v1 setup id", &[&self.0]))
    }

    /// The secret shared with `peer`, bound to the greeting's transcript; `None` if the peer's key
    /// is a point of small order, which anyone could have sent to fix the result.
    pub fn agree(&self, peer: Role, public: [u8; 32], transcript: [u8; 32]) -> Option<PairSecret> {
        let shared = Zeroizing::new(x25519(*self.ephemeral(peer), public));
        let zero = shared.iter().fold(0, |all, b| all | b) == 0;
        (!zero).then(|| PairSecret(derive("bcc runtime v1 pair secret", &[&*shared, &transcript])))
    }
}

/// What two parties share in a session.
pub struct PairSecret(Zeroizing<[u8; 32]>);

impl PairSecret {
    /// What `role` sends to show that it has the same secret and transcript.
    pub fn confirmation(&self, role: Role) -> [u8; 32] {
        *derive("bcc runtime v1 key confirmation", &[&*self.0, &[role as u8]])
    }

    /// The pair's key for streams of the model.
    pub fn model_key(&self) -> Key {
        Key::new(first_half(&derive("bcc runtime v1 model key", &[&*self.0])))
    }

    /// The pair's keys for streams of inferences.
    pub fn chain(&self) -> Chain {
        Chain(derive("bcc runtime v1 inference chain", &[&*self.0]))
    }

    /// A name for offline material made in this session, for client and server. It is public.
    pub fn material_id(&self, index: u32) -> [u8; 16] {
        first_half(&derive("bcc runtime v1 material id", &[&*self.0, &index.to_le_bytes()]))
    }
}

/// One key per inference. The state before a key is erased with it: neither can be made again.
pub struct Chain(Zeroizing<[u8; 32]>);

impl Chain {
    /// The next inference's key.
    pub fn advance(&mut self) -> Key {
        let key = Key::new(first_half(&derive("bcc runtime v1 inference key", &[&*self.0])));
        self.0 = derive("bcc runtime v1 next inference", &[&*self.0]);
        key
    }
}

fn derive(context: &str, parts: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    parts.iter().for_each(|p| {
        hasher.update(p);
    });
    let mut out = Zeroizing::new([0; 32]);
    hasher.finalize_xof().fill(&mut *out);
    out
}

fn first_half(bytes: &[u8; 32]) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(&bytes[..16]);
    half
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_agree_and_the_transcript_counts() {
        let c = Secrets::insecure_from_seed([1; 32]);
        let d = Secrets::insecure_from_seed([2; 32]);
        let at_c = c.agree(Role::Dealer, d.public(Role::Client), [3; 32]).unwrap();
        let at_d = d.agree(Role::Client, c.public(Role::Dealer), [3; 32]).unwrap();
        let other = d.agree(Role::Client, c.public(Role::Dealer), [4; 32]).unwrap();
        assert_eq!(at_c.confirmation(Role::Client), at_d.confirmation(Role::Client));
        assert_ne!(at_c.confirmation(Role::Client), at_d.confirmation(Role::Dealer));
        assert_ne!(at_c.confirmation(Role::Client), other.confirmation(Role::Client));
        let (mut x, mut y) = (at_c.chain(), at_d.chain());
        let keys: Vec<_> = (0..3).map(|_| (x.advance().0, y.advance().0)).collect();
        assert!(keys.iter().all(|(a, b)| a == b) && keys[0] != keys[1] && keys[1] != keys[2]);
        assert_ne!(at_c.model_key().0, keys[0].0);
    }

    #[test]
    fn refuses_points_of_small_order() {
        let c = Secrets::insecure_from_seed([1; 32]);
        assert!(c.agree(Role::Dealer, [0; 32], [0; 32]).is_none());
        let mut one = [0; 32];
        one[0] = 1;
        assert!(c.agree(Role::Dealer, one, [0; 32]).is_none());
    }
}
