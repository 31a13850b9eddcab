// Binds the co-visit walk: arrays in, tuples of arrays out that own their memory.
#include <nanobind/nanobind.h>
#include <nanobind/stl/tuple.h>

#include <atomic>
#include <memory>

#include "co_visits.hpp"
#include "module.hpp"
#include "module_arrays.hpp"
#include "module_busy.hpp"
#include "view.hpp"

namespace nb = nanobind;
using namespace nowgraph;

namespace {

struct HeldWalk {
  std::shared_ptr<Arena> arena;
  CoVisitWalk walk;
  std::atomic_flag busy;

  HeldWalk(std::shared_ptr<Arena> arena, u32 user_link, u32 item_link)
      : arena(std::move(arena)), walk(*this->arena, user_link, item_link) {}
};

// One question takes less than letting go of Python's lock and taking it again may cost: see the sampler.
constexpr std::size_t RELEASE_FROM_QUESTIONS = 2;

template <class Body>
auto held(HeldWalk& self, std::size_t questions, Body body) {
  const Busy busy(self.busy, "a co-visit walk");
  if (questions < RELEASE_FROM_QUESTIONS) return body();
  nb::gil_scoped_release release;
  return body();
}

void check_cutoffs(std::size_t questions, const In<i64>& cutoff_time_us) {
  if (cutoff_time_us.size() != questions) throw nb::value_error("as many cut-offs as questions are needed");
}

// Offset, interaction, item, event time, visible time.
nb::tuple histories(HeldWalk& self, In<i64> user_row, In<i64> cutoff_time_us, u32 limit) {
  check_cutoffs(user_row.size(), cutoff_time_us);
  Histories out = held(self, user_row.size(), [&] {
    return self.walk.histories(user_row.data(), cutoff_time_us.data(), user_row.size(), limit);
  });
  return nb::make_tuple(moved(out.offset), moved(out.interaction), moved(out.item), moved(out.event_time_us),
                        moved(out.visible_time_us));
}

// Co-visits in the hands of numpy; when the last array is gone, their memory serves the next walk.
struct HeldCoVisits {
  std::unique_ptr<CoVisits> found;
  std::shared_ptr<Pool<CoVisits>> pool;

  HeldCoVisits(std::unique_ptr<CoVisits> found, std::shared_ptr<Pool<CoVisits>> pool)
      : found(std::move(found)), pool(std::move(pool)) {}
  ~HeldCoVisits() { pool->give_back(std::move(found)); }
};

// Offset, history, item, weight, total, visits.
nb::tuple walk(HeldWalk& self, In<i64> offset, In<i64> item, In<i64> user_row, In<i64> cutoff_time_us, u32 visits,
               u32 window, double exponent) {
  check_cutoffs(user_row.size(), cutoff_time_us);
  if (offset.size() != user_row.size() + 1) throw nb::value_error("as many histories as questions are needed");
  auto found = held(self, user_row.size(), [&] {
    return self.walk.walk(offset.data(), item.data(), item.size(), user_row.data(), cutoff_time_us.data(),
                          user_row.size(), {visits, window, exponent});
  });
  CoVisits& out = *found;
  auto* holder = new HeldCoVisits(std::move(found), self.walk.pool());
  const nb::capsule owner(holder, [](void* p) noexcept { delete static_cast<HeldCoVisits*>(p); });
  const auto flat = [&](Column<i64>& column) { return Out<i64>(column.data(), {column.size()}, owner); };
  const auto threes = [&](Column<float>& column) {
    return nb::ndarray<nb::numpy, float, nb::ndim<2>>(column.data(), {column.size() / 3, 3}, owner);
  };
  return nb::make_tuple(flat(out.offset), flat(out.history), flat(out.item), threes(out.weight), threes(out.total),
                        flat(out.visits));
}

// Count, first, last.
nb::tuple degrees(HeldWalk& self, In<i64> item_row, In<i64> cutoff_time_us) {
  check_cutoffs(item_row.size(), cutoff_time_us);
  Degrees out = held(self, item_row.size(), [&] {
    return self.walk.degrees(item_row.data(), cutoff_time_us.data(), item_row.size());
  });
  return nb::make_tuple(moved(out.count), moved(out.first_us), moved(out.last_us));
}

}  // namespace

void bind_co_visits(nb::module_& module) {
  nb::class_<HeldWalk>(module, "CoVisitWalk")
      .def("__init__", [](HeldWalk* self, const View& view, u32 user_link, u32 item_link) {
        new (self) HeldWalk(view.arena, user_link, item_link);
      }, nb::arg("view"), nb::arg("user_link"), nb::arg("item_link"))
      .def("histories", &histories, nb::arg("user_row"), nb::arg("cutoff_time_us"), nb::arg("limit"))
      .def("walk", &walk, nb::arg("offset"), nb::arg("item"), nb::arg("user_row"), nb::arg("cutoff_time_us"),
           nb::arg("visits"), nb::arg("window"), nb::arg("exponent"))
      .def("degrees", &degrees, nb::arg("item_row"), nb::arg("cutoff_time_us"));
}
