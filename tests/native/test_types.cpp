// The words of types.hpp: the time rule at its boundaries, and the ticks that abbreviate a visible time.
#include "types.hpp"

#include <vector>

#include "testing.hpp"

using namespace nowgraph;

TEST("the visible time is the later clock, whichever it is") {
  CHECK_EQUAL(visible_time_us(10, 20), 20);
  CHECK_EQUAL(visible_time_us(20, 10), 20);
  CHECK_EQUAL(visible_time_us(ALWAYS_US, ALWAYS_US), ALWAYS_US);
  CHECK_EQUAL(visible_time_us(-5, ALWAYS_US), -5);
}

TEST("a row is visible at its visible time and hidden one microsecond before, on both clocks") {
  const i64 event = 1'700'000'000'000'000, known = event + 604'800'000'000;
  CHECK(is_visible(visible_time_us(event, known), known));
  CHECK(!is_visible(visible_time_us(event, known), known - 1));
  CHECK(is_visible(visible_time_us(known, event), known));
  CHECK(!is_visible(visible_time_us(known, event), known - 1));
}

TEST("a row without time is visible to every cut-off") {
  CHECK(is_visible(visible_time_us(ALWAYS_US, ALWAYS_US), INT64_MIN));
  CHECK(is_visible(visible_time_us(ALWAYS_US, ALWAYS_US), 0));
}

TEST("ticks never turn the order of times around, and never leave their width") {
  const i64 day = 86'400'000'000;
  std::vector<i64> times{INT64_MIN, INT64_MIN + 1, TICK_ORIGIN_US - 1, TICK_ORIGIN_US, -1, 0, 1, INT64_MAX - 1, INT64_MAX};
  for (i64 time = -10'000 * day; time < 30'000 * day; time += 97 * day + 12'345'677) {
    times.push_back(time - 1);
    times.push_back(time);
  }
  for (const i64 a : times) {
    CHECK(tick_of(a) <= TICK_MAX);
    for (const i64 b : times) {
      if (tick_of(a) < tick_of(b)) CHECK(a < b);
      if (a < b) CHECK(tick_of(a) <= tick_of(b));
    }
  }
}

TEST("times more than one tick apart have different ticks") {
  const i64 tick_us = i64{1} << TICK_SHIFT, now = 1'700'000'000'000'000;
  CHECK(tick_of(now) < tick_of(now + tick_us));
  CHECK(tick_of(now - tick_us) < tick_of(now));
}

TEST("hashing bytes sees every byte and the length") {
  const std::string text = "a customer's key, longer than a word";
  for (std::size_t size = 0; size < text.size(); ++size) {
    CHECK(hash_bytes(text.data(), size) != hash_bytes(text.data(), size + 1));
    std::string other = text;
    other[size] ^= 1;
    CHECK(hash_bytes(text.data(), text.size()) != hash_bytes(other.data(), other.size()));
  }
}

TEST("what is stored unaligned is loaded unchanged") {
  char bytes[16] = {};
  store<i64>(bytes + 3, -123456789012345);
  CHECK_EQUAL(load<i64>(bytes + 3), -123456789012345);
  store<u32>(bytes + 5, NONE);
  CHECK_EQUAL(load<u32>(bytes + 5), NONE);
}
