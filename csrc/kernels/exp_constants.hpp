// The constants of exp in float32, shared by the scalar and the SIMD form so that both give the same bits:
// reduction to |r| <= ln(2) / 2 (Cody and Waite), a polynomial of degree 6 (Cephes, expf), at most 2 ulp from
// the true value. Constants only: an inline function here could be compiled once for AVX and then run on a
// baseline CPU.
#pragma once

namespace retinaface {

inline constexpr float kExpOverflow = 88.72283F;    // above: infinity
inline constexpr float kExpUnderflow = -87.33654F;  // below: 0, where the result would be subnormal
inline constexpr float kLog2E = 1.44269504F;
inline constexpr float kLn2High = 0.693359375F;
inline constexpr float kLn2Low = -2.12194440e-4F;
// Adding and subtracting 1.5 * 2^23 rounds to the nearest integer.
inline constexpr float kRoundMagic = 12582912.0F;
inline constexpr float kExpC0 = 1.9875691500e-4F;
inline constexpr float kExpC1 = 1.3981999507e-3F;
inline constexpr float kExpC2 = 8.3334519073e-3F;
inline constexpr float kExpC3 = 4.1665795894e-2F;
inline constexpr float kExpC4 = 1.6666665459e-1F;
inline constexpr float kExpC5 = 5.0000001201e-1F;

}  // namespace retinaface
