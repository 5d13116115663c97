//! MD5 (RFC 1321): Kinesis hashes a partition key with it to find the record's shard.

/// The sines of the integers 1 to 64, as the RFC tabulates them.
#[rustfmt::skip]
const SINES: [u32; 64] = [
    0xd76aa478, 0xe8c7b756, 0x242070db, 0xc1bdceee, 0xf57c0faf, 0x4787c62a, 0xa8304613, 0xfd469501,
    0x698098d8, 0x8b44f7af, 0xffff5bb1, 0x895cd7be, 0x6b901122, 0xfd987193, 0xa679438e, 0x49b40821,
    0xf61e2562, 0xc040b340, 0x265e5a51, 0xe9b6c7aa, 0xd62f105d, 0x02441453, 0xd8a1e681, 0xe7d3fbc8,
    0x21e1cde6, 0xc33707d6, 0xf4d50d87, 0x455a14ed, 0xa9e3e905, 0xfcefa3f8, 0x676f02d9, 0x8d2a4c8a,
    0xfffa3942, 0x8771f681, 0x6d9d6122, 0xfde5380c, 0xa4beea44, 0x4bdecfa9, 0xf6bb4b60, 0xbebfbc70,
    0x289b7ec6, 0xeaa127fa, 0xd4ef3085, 0x04881d05, 0xd9d4d039, 0xe6db99e5, 0x1fa27cf8, 0xc4ac5665,
    0xf4292244, 0x432aff97, 0xab9423a7, 0xfc93a039, 0x655b59c3, 0x8f0ccc92, 0xffeff47d, 0x85845dd1,
    0x6fa87e4f, 0xfe2ce6e0, 0xa3014314, 0x4e0811a1, 0xf7537e82, 0xbd3af235, 0x2ad7d2bb, 0xeb86d391,
];

const SHIFTS: [[u32; 4]; 4] = [[7, 12, 17, 22], [5, 9, 14, 20], [4, 11, 16, 23], [6, 10, 15, 21]];

const BLOCK: usize = 64;

/// Returns the digest of `bytes` as a number, most significant byte first.
pub(crate) fn digest(bytes: &[u8]) -> u128 {
    let mut state = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];
    let (blocks, rest) = bytes.as_chunks::<BLOCK>();
    for block in blocks {
        mix(&mut state, block);
    }
    let mut last = [0; BLOCK];
    last[..rest.len()].copy_from_slice(rest);
    last[rest.len()] = 0x80;
    if rest.len() >= BLOCK - 8 {
        mix(&mut state, &last);
        last = [0; BLOCK];
    }
    let bits = (bytes.len() as u64).wrapping_mul(8);
    last[BLOCK - 8..].copy_from_slice(&bits.to_le_bytes());
    mix(&mut state, &last);
    state.iter().fold(0, |number, word| (number << 32) | u128::from(word.swap_bytes()))
}

fn mix(state: &mut [u32; 4], block: &[u8; BLOCK]) {
    let mut words = [0; 16];
    let (quads, _) = block.as_chunks::<4>();
    for (word, quad) in words.iter_mut().zip(quads) {
        *word = u32::from_le_bytes(*quad);
    }
    let [mut a, mut b, mut c, mut d] = *state;
    for (step, sine) in SINES.iter().enumerate() {
        let (mixed, word) = match step / 16 {
            0 => ((b & c) | (!b & d), step),
            1 => ((d & b) | (!d & c), 5 * step + 1),
            2 => (b ^ c ^ d, 3 * step + 5),
            _ => (c ^ (b | !d), 7 * step),
        };
        let sum = a.wrapping_add(mixed).wrapping_add(*sine).wrapping_add(words[word % 16]);
        (a, d, c) = (d, c, b);
        b = b.wrapping_add(sum.rotate_left(SHIFTS[step / 16][step % 4]));
    }
    for (word, add) in state.iter_mut().zip([a, b, c, d]) {
        *word = word.wrapping_add(add);
    }
}

#[cfg(test)]
mod tests {
    use super::digest;

    #[test]
    fn digests_equal_the_rfc_vectors() {
        for (text, expected) in [
            ("", 0xd41d_8cd9_8f00_b204_e980_0998_ecf8_427e),
            ("a", 0x0cc1_75b9_c0f1_b6a8_31c3_99e2_6977_2661),
            ("abc", 0x9001_5098_3cd2_4fb0_d696_3f7d_28e1_7f72),
            ("message digest", 0xf96b_697d_7cb7_938d_525a_2f31_aaf1_61d0),
            ("abcdefghijklmnopqrstuvwxyz", 0xc3fc_d3d7_6192_e400_7dfb_496c_ca67_e13b),
            (
                "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789",
                0xd174_ab98_d277_d9f5_a561_1c2c_9f41_9d9f,
            ),
        ] {
            assert_eq!(digest(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn digests_are_right_around_the_block_boundary() {
        // 'x' repeated, checked against another implementation.
        for (length, expected) in [
            (55, 0x0436_4420_e25c_512f_d958_a707_38aa_8f72),
            (56, 0x668a_72d5_ba17_f08e_62da_bcaf_ad6d_b14b),
            (63, 0x7dc2_ca20_8106_a2f7_0356_7bdf_f99d_8981),
            (64, 0xc1bb_4f81_d892_b2d5_7947_682a_eb25_2456),
            (65, 0x1bc9_3205_2302_d074_bdec_3979_5fe0_0cf6),
            (119, 0xab34_7a5f_68c8_a443_cfcd_dc63_3f12_c24f),
            (120, 0xfb98_667f_9809_6de9_2620_b64f_46e1_c5b5),
            (256, 0xc7a1_39a2_b8e9_2164_276f_7789_17ba_10b9),
        ] {
            assert_eq!(digest("x".repeat(length).as_bytes()), expected, "{length}");
        }
    }
}
