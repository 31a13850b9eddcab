// Words that every part of the native core shares: widths, sentinels, the time rule and hashes.
#pragma once

#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <string_view>

namespace nowgraph {

using u8 = std::uint8_t;
using u16 = std::uint16_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;
using i32 = std::int32_t;
using i64 = std::int64_t;

// No row: an unknown key, a null foreign key, a seed that is not in the graph.
inline constexpr u32 NONE = 0xFFFFFFFFu;
// Event and known time of a row without time: always visible.
inline constexpr i64 ALWAYS_US = INT64_MIN;
// Known time of a record that was created by a foreign key alone. It is never the known time of an event.
inline constexpr i64 BARE_US = INT64_MIN + 1;
inline constexpr i64 NULL_TIMESTAMP_US = INT64_MIN;

#define NOWGRAPH_INLINE inline __attribute__((always_inline))

// ------------------------------------------------------------------------------------------------------------------
// The time rule, the only place in C++ where it is written.

NOWGRAPH_INLINE i64 visible_time_us(i64 event_time_us, i64 known_time_us) {
  return event_time_us > known_time_us ? event_time_us : known_time_us;
}

NOWGRAPH_INLINE bool is_visible(i64 visible_us, i64 cutoff_time_us) { return visible_us <= cutoff_time_us; }

// A tick is a visible time in units of 4.2 s, 31 bits wide: 1827 to 2112, clamped outside. It never decides alone: a
// smaller tick is earlier, a larger one later, and equal ticks are told apart by the exact microseconds of the row.
inline constexpr int TICK_SHIFT = 22;
inline constexpr i64 TICK_ORIGIN_US = -(i64{1} << 52);
inline constexpr u32 TICK_MAX = 0x7FFFFFFFu;

NOWGRAPH_INLINE u32 tick_of(i64 time_us) {
  if (time_us < TICK_ORIGIN_US) return 0;
  const u64 tick = (static_cast<u64>(time_us) - static_cast<u64>(TICK_ORIGIN_US)) >> TICK_SHIFT;
  return tick > TICK_MAX ? TICK_MAX : static_cast<u32>(tick);
}

// ------------------------------------------------------------------------------------------------------------------
// Hashes. Mixing is splitmix64's finaliser; strings go through FNV-1a in 8-byte steps (not stored, so free to change).

NOWGRAPH_INLINE u64 mix64(u64 x) {
  x ^= x >> 30;
  x *= 0xBF58476D1CE4E5B9ull;
  x ^= x >> 27;
  x *= 0x94D049BB133111EBull;
  return x ^ (x >> 31);
}

inline u64 hash_bytes(const char* data, std::size_t size) {
  u64 hash = 0xCBF29CE484222325ull ^ size;
  while (size >= 8) {
    u64 word;
    std::memcpy(&word, data, 8);
    hash = mix64(hash ^ word);
    data += 8;
    size -= 8;
  }
  u64 tail = 0;
  std::memcpy(&tail, data, size);
  return mix64(hash ^ tail ^ (u64{size} << 56));
}

// Integer keys are counters more often than not: eight consecutive ones share the high half's upper bits, and with them
// a cache line of a map's slots, so that a run of new rows touches one line where it would touch eight.
NOWGRAPH_INLINE u64 hash_integer(i64 key) {
  const u64 mixed = mix64((static_cast<u64>(key) >> 3) + 0x9E3779B97F4A7C15ull);
  return (mixed & ~(u64{7} << 32)) | ((static_cast<u64>(key) & 7) << 32);
}

// ------------------------------------------------------------------------------------------------------------------
// Unaligned loads and stores: records are packed to 4 bytes.

template <class T>
NOWGRAPH_INLINE T load(const void* from) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  return value;
}

template <class T>
NOWGRAPH_INLINE void store(void* to, T value) {
  std::memcpy(to, &value, sizeof(T));
}

NOWGRAPH_INLINE void prefetch(const void* address) { __builtin_prefetch(address); }
NOWGRAPH_INLINE void prefetch_write(const void* address) { __builtin_prefetch(address, 1); }

// Operating errors that Python translates into the package's own tree.
struct ArenaFull : std::runtime_error {
  using std::runtime_error::runtime_error;
};
struct ArenaRefused : std::runtime_error {
  using std::runtime_error::runtime_error;
};
// An image that can't be used: another may.
struct ImageRefused : ArenaRefused {
  using ArenaRefused::ArenaRefused;
};

}  // namespace nowgraph
