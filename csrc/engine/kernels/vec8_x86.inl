// 8 floats in a register of AVX: what vector_kernels.inl is written in, for the instruction sets that have
// those registers and FMA. Each includes this inside its anonymous namespace.

using Vec8 = __m256;

inline Vec8 load(const float* from) { return _mm256_loadu_ps(from); }
inline void store(float* to, Vec8 v) { _mm256_storeu_ps(to, v); }
inline Vec8 broadcast(float x) { return _mm256_set1_ps(x); }
inline Vec8 zero8() { return _mm256_setzero_ps(); }
inline Vec8 add(Vec8 a, Vec8 b) { return _mm256_add_ps(a, b); }
inline Vec8 subtract(Vec8 a, Vec8 b) { return _mm256_sub_ps(a, b); }
inline Vec8 multiply(Vec8 a, Vec8 b) { return _mm256_mul_ps(a, b); }
inline Vec8 maximum(Vec8 a, Vec8 b) { return _mm256_max_ps(a, b); }
inline Vec8 multiply_add(Vec8 a, Vec8 b, Vec8 c) { return _mm256_fmadd_ps(a, b, c); }
inline Vec8 subtract_product(Vec8 a, Vec8 b, Vec8 c) { return _mm256_fnmadd_ps(a, b, c); }

inline Vec8 load_bytes(const std::uint8_t* from) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from));
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes));
}

inline void store_sums4(Vec8 a, Vec8 b, Vec8 c, Vec8 d, float* out) {
    const Vec8 sums = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
    _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(sums), _mm256_extractf128_ps(sums, 1)));
}
