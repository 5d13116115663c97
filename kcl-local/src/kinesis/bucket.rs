//! The token bucket behind every rate limit.

/// Tokens are counted in thousandths, so that a rate per second is a whole number per millisecond.
const SCALE: i64 = 1_000;

/// An allowance that refills with time and holds one second's worth.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bucket {
    /// Used thousandths; negative never, above the capacity when overdrawn.
    used: i64,
    /// When `used` was last brought up to date, in milliseconds.
    at: u64,
    /// Set while an overdraft is paid back.
    blocked: bool,
}

impl Bucket {
    /// Takes `cost` tokens if they are there. A cost above the capacity passes when the bucket is full.
    pub(crate) fn take(&mut self, rate: Option<u32>, cost: u64, now: u64) -> bool {
        let fits = self.fits(rate, cost, now);
        if fits {
            self.charge(rate, cost);
        }
        fits
    }

    /// Says whether [`take`](Self::take) would succeed.
    pub(crate) fn fits(&mut self, rate: Option<u32>, cost: u64, now: u64) -> bool {
        let Some(rate) = rate else { return true };
        self.refill(rate, now);
        let cost = scaled(cost);
        self.used == 0 || self.used.saturating_add(cost) <= i64::from(rate) * SCALE
    }

    /// Says whether an amount that is known only afterwards may be drawn.
    pub(crate) fn is_open(&mut self, rate: Option<u32>, now: u64) -> bool {
        let Some(rate) = rate else { return true };
        self.refill(rate, now);
        !self.blocked
    }

    /// Takes `cost` tokens whether they are there or not; an overdraft closes the bucket until it is full.
    pub(crate) fn charge(&mut self, rate: Option<u32>, cost: u64) {
        let Some(rate) = rate else { return };
        self.used = self.used.saturating_add(scaled(cost));
        self.blocked = self.used > i64::from(rate) * SCALE;
    }

    /// When the bucket closed by an overdraft opens again, in milliseconds; `None` if it is open.
    pub(crate) fn opens_at(&mut self, rate: Option<u32>, now: u64) -> Option<u64> {
        if self.is_open(rate, now) {
            return None;
        }
        let rate = i64::from(rate?.max(1));
        Some(now.saturating_add(u64::try_from(self.used).unwrap_or(0).div_ceil(rate.unsigned_abs())))
    }

    fn refill(&mut self, rate: u32, now: u64) {
        let elapsed = i64::try_from(now.saturating_sub(self.at)).unwrap_or(i64::MAX);
        self.used = self.used.saturating_sub(elapsed.saturating_mul(i64::from(rate))).max(0);
        self.at = now;
        self.blocked &= self.used > 0;
    }
}

fn scaled(cost: u64) -> i64 {
    i64::try_from(cost).unwrap_or(i64::MAX).saturating_mul(SCALE)
}

#[cfg(test)]
mod tests {
    use super::Bucket;

    #[test]
    fn one_second_holds_the_rate_and_no_more() {
        let mut bucket = Bucket::default();
        let passed = (0..10).filter(|_| bucket.take(Some(5), 1, 7)).count();
        assert_eq!(passed, 5);
        assert!(!bucket.take(Some(5), 1, 206));
        assert!(bucket.take(Some(5), 1, 207));
    }

    #[test]
    fn an_overdraft_closes_the_bucket_until_it_is_full_again() {
        let mut bucket = Bucket::default();
        assert!(bucket.is_open(Some(100), 0));
        bucket.charge(Some(100), 500);
        assert_eq!(bucket.opens_at(Some(100), 1_000), Some(5_000));
        assert!(!bucket.is_open(Some(100), 4_999));
        assert!(bucket.is_open(Some(100), 5_000));
        assert_eq!(bucket.opens_at(Some(100), 5_000), None);
    }

    #[test]
    fn a_cost_above_the_capacity_passes_only_when_the_bucket_is_full() {
        let mut bucket = Bucket::default();
        assert!(bucket.take(Some(10), 1, 0));
        assert!(!bucket.take(Some(10), 25, 99));
        assert!(bucket.take(Some(10), 25, 100));
        assert!(!bucket.take(Some(10), 1, 1_600), "1.5 seconds pay back only what is above the capacity");
        assert!(bucket.take(Some(10), 1, 1_700));
    }

    #[test]
    fn without_a_rate_everything_passes() {
        let mut bucket = Bucket::default();
        assert!(bucket.take(None, u64::MAX, 0));
        assert!(bucket.is_open(None, 0));
    }
}
