#include "co_visits.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

namespace nowgraph {

namespace {

// How far ahead memory is asked for: in questions, in visits, in entries of a list.
constexpr std::size_t AHEAD_RECORD = 12, AHEAD_LIST = 8, AHEAD_ENDS = 4;
constexpr std::size_t AHEAD_USER = 16, AHEAD_AROUND = 6;
constexpr u32 AHEAD_ENTRY = 12;
// A longer list of a user is searched by time rather than looked through from its end.
constexpr u32 LOOK_THROUGH_MAX = 128;

void check_rows(const i64* rows, std::size_t count, const TableRows& of) {
  for (std::size_t i = 0; i < count; ++i)
    if (rows[i] < -1 || rows[i] >= static_cast<i64>(of.limit))
      throw std::out_of_range("entry " + std::to_string(i) + " is no row of table " + of.header->name);
}

NOWGRAPH_INLINE void prefetch_entry(const Interactions& in, const List& list, u32 place) {
  const char* record = in.record(in.row_of(in.at(list, place)));
  if (record != nullptr) in.rows.prefetch_record(record, false);
}

// Lists of parents to come: their words, then their newest entries.
NOWGRAPH_INLINE void preview(const Interactions& in, const TableRows& parents, const LinkHeader& link, const i64* rows,
                             std::size_t count, std::size_t i) {
  if (i + AHEAD_RECORD < count && rows[i + AHEAD_RECORD] >= 0)
    prefetch(parents.record(static_cast<u32>(rows[i + AHEAD_RECORD])));
  if (i + AHEAD_LIST < count && rows[i + AHEAD_LIST] >= 0)
    in.prefetch_newest(parents.record(static_cast<u32>(rows[i + AHEAD_LIST])), link);
}

// The oldest and the newest of an item's interactions.
NOWGRAPH_INLINE void prefetch_ends(const Interactions& in, const char* item_record) {
  const List list = in.reader().list(Reader::list_word_of(item_record, in.item_link.word_in_parent));
  if (list.count == 0) return;
  prefetch_entry(in, list, 0);
  prefetch_entry(in, list, list.count - 1);
}

}  // namespace

CoVisitWalk::CoVisitWalk(Arena& arena, u32 user_link, u32 item_link)
    : reader_(arena), user_link_(user_link), item_link_(item_link) {
  const u32 links = reader_.graph().link_count;
  if (user_link >= links || item_link >= links || user_link == item_link ||
      reader_.link(user_link).child != reader_.link(item_link).child)
    throw std::invalid_argument("a co-visit walk needs two different links of one table");
}

// ---- histories ------------------------------------------------------------------------------------------------------

Histories CoVisitWalk::histories(const i64* user_row, const i64* cutoff_time_us, std::size_t count, u32 limit) {
  const Interactions in(reader_, user_link_, item_link_);
  check_rows(user_row, count, in.users);
  Histories out;
  out.offset.reserve(count + 1);
  out.offset.push(0);
  for (std::size_t i = 0; i < count; ++i) {
    preview(in, in.users, in.user_link, user_row, count, i);
    if (user_row[i] >= 0) {
      const u32 user = static_cast<u32>(user_row[i]);
      const i64 cutoff = cutoff_time_us[i];
      const auto [list, visible] = in.prefix(in.users.record(user), in.user_link, cutoff);
      for (u32 n = 0; n < std::min(limit, visible); ++n) prefetch_entry(in, list, visible - 1 - n);
      u32 taken = 0;
      for (u32 place = visible; place-- > 0 && taken < limit;) {
        const Entry& entry = in.at(list, place);
        const u32 item = in.item_under(entry, user, cutoff);
        if (item == NONE) continue;
        const u32 row = in.row_of(entry);
        out.interaction.push(row);
        out.item.push(item);
        out.event_time_us.push(in.event_time_us(in.rows.record(row), cutoff));
        out.visible_time_us.push(in.open_time_us(entry));
        ++taken;
      }
    }
    out.offset.push(static_cast<i64>(out.item.size()));
  }
  return out;
}

// ---- degrees --------------------------------------------------------------------------------------------------------

Degrees CoVisitWalk::degrees(const i64* item_row, const i64* cutoff_time_us, std::size_t count) {
  const Interactions in(reader_, user_link_, item_link_);
  check_rows(item_row, count, in.items);
  Degrees out;
  i64* counts = out.count.extend(count);
  i64* first = out.first_us.extend(count);
  i64* last = out.last_us.extend(count);
  for (std::size_t i = 0; i < count; ++i) {
    preview(in, in.items, in.item_link, item_row, count, i);
    if (i + AHEAD_ENDS < count && item_row[i + AHEAD_ENDS] >= 0)
      prefetch_ends(in, in.items.record(static_cast<u32>(item_row[i + AHEAD_ENDS])));
    counts[i] = 0;
    first[i] = last[i] = ALWAYS_US;
    if (item_row[i] < 0) continue;
    const u32 item = static_cast<u32>(item_row[i]);
    const i64 cutoff = cutoff_time_us[i];
    const auto [list, visible] = in.prefix(in.items.record(item), in.item_link, cutoff);
    const bool none_moved = Interactions::none_moved(in.rows);
    const auto shown = [&, list = list](u32 place) {
      const Entry& entry = in.at(list, place);
      const u32 row = in.row_of(entry);
      const char* record = in.record(row);
      return record != nullptr && (none_moved || in.linked(entry, row, record, in.item_link, item, cutoff));
    };
    u32 oldest = 0, end = visible;
    while (oldest < end && !shown(oldest)) ++oldest;
    while (end > oldest && !shown(end - 1)) --end;
    if (oldest == end) continue;
    first[i] = in.open_time_us(in.at(list, oldest));
    last[i] = in.open_time_us(in.at(list, end - 1));
    counts[i] = end - oldest;
    if (end - oldest > DEGREE_EXACT_MAX || (none_moved && in.all_published())) continue;
    for (u32 place = oldest + 1; place + 1 < end; ++place) {
      if (!none_moved && place + AHEAD_ENTRY < end) prefetch_entry(in, list, place + AHEAD_ENTRY);
      counts[i] -= !shown(place);
    }
  }
  return out;
}

// ---- the walk -------------------------------------------------------------------------------------------------------

std::unique_ptr<CoVisits> CoVisitWalk::walk(const i64* offset, const i64* item, std::size_t entries,
                                            const i64* user_row, const i64* cutoff_time_us, std::size_t count,
                                            const CoVisitPlan& plan) {
  if (plan.visits == 0 || plan.window == 0 || !(plan.exponent >= 0))
    throw std::invalid_argument("a co-visit walk looks at one visit and one place at least, with an exponent from 0 on");
  const Interactions in(reader_, user_link_, item_link_);
  check_rows(user_row, count, in.users);
  check_rows(item, entries, in.items);
  if (offset[0] != 0 || offset[count] != static_cast<i64>(entries) || !std::is_sorted(offset, offset + count + 1))
    throw std::invalid_argument("the histories' offsets do not divide their items");
  plan_ = plan;
  weight_of_gap_.resize(plan.window + 1);
  weight_of_gap_[0] = 1.0f;  // at the same time
  for (u32 gap = 1; gap <= plan.window; ++gap)
    weight_of_gap_[gap] = static_cast<float>(std::pow(static_cast<double>(gap), -plan.exponent));
  around_.resize(in.items.limit);
  std::unique_ptr<CoVisits> result = pool_->take();
  CoVisits& out = *result;
  out.clear();
  out_ = &out;
  std::fill_n(out.total.extend(3 * entries), 3 * entries, 0.0f);
  std::fill_n(out.visits.extend(entries), entries, i64{0});
  out.offset.reserve(count + 1);
  out.offset.push(0);
  for (std::size_t i = 0; i < count; ++i) {
    walk_one(in, item, static_cast<u64>(offset[i]), static_cast<u64>(offset[i + 1]),
             user_row[i] < 0 ? NONE : static_cast<u32>(user_row[i]), cutoff_time_us[i]);
    out.offset.push(static_cast<i64>(out.item.size()));
  }
  return result;
}

void CoVisitWalk::walk_one(const Interactions& in, const i64* item, u64 low, u64 high, u32 user, i64 cutoff_time_us) {
  choose(in, item, low, high, cutoff_time_us);
  visits_.clear();
  for (u32 start = 0; start < starts_.size(); ++start) take_visits(in, start, user, cutoff_time_us);
  u32 current = NONE;
  // A visit in three steps, each some visits after the one before, so that memory is waited for in parallel.
  for (std::size_t i = 0; i < visits_.size() + AHEAD_USER; ++i) {
    if (i < visits_.size()) in.prefetch_newest(in.users.record(visits_[i].user), in.user_link);
    if (i >= AHEAD_USER - AHEAD_AROUND && i - (AHEAD_USER - AHEAD_AROUND) < visits_.size())
      locate(in, visits_[i - (AHEAD_USER - AHEAD_AROUND)], cutoff_time_us);
    if (i < AHEAD_USER) continue;
    const Visit& visit = visits_[i - AHEAD_USER];
    if (visit.start != current) {
      if (current != NONE) put_pairs(starts_[current]);
      current = visit.start;
      around_.clear();
    }
    look_around(in, visit, cutoff_time_us);
  }
  if (current != NONE) put_pairs(starts_[current]);
}

// The entries whose items are walked, and of each the newest interactions of its item.
void CoVisitWalk::choose(const Interactions& in, const i64* item, u64 low, u64 high, i64 cutoff_time_us) {
  starts_.clear();
  candidates_.clear();
  walked_.clear(static_cast<u32>(high - low));
  for (u64 history = low; history < high; ++history) {
    if (item[history] < 0 || !walked_.insert(static_cast<u32>(item[history]))) continue;
    starts_.push_back({history, static_cast<u32>(item[history]), 0, 0, 0, {}});
    prefetch(in.items.record(starts_.back().item));
  }
  for (const Start& start : starts_) in.prefetch_newest(in.items.record(start.item), in.item_link);
  for (Start& start : starts_) {
    start.first = start.end = static_cast<u32>(candidates_.size());
    if (in.deleted(in.items, start.item, cutoff_time_us)) continue;
    const auto [list, visible] = in.prefix(in.items.record(start.item), in.item_link, cutoff_time_us);
    start.list = list;
    start.reserve = visible - std::min(visible, plan_.visits);
    for (u32 place = visible; place-- > start.reserve;) {
      const Entry& entry = in.at(list, place);
      const u32 row = in.row_of(entry);
      const char* record = in.record(row);
      if (record != nullptr) in.rows.prefetch_record(record, false);
      candidates_.push_back({record, entry, row, NONE});
    }
    start.end = static_cast<u32>(candidates_.size());
  }
  for (const Start& start : starts_)
    for (u32 i = start.first; i < start.end; ++i) {
      Candidate& one = candidates_[i];
      if (one.record == nullptr) continue;
      if (!in.linked(one.entry, one.row, one.record, in.item_link, start.item, cutoff_time_us)) continue;
      one.user = in.named(one.record, in.user_link, cutoff_time_us);
      if (one.user < in.users.limit) in.users.prefetch_record(in.users.record(one.user), true);
    }
}

void CoVisitWalk::take_visits(const Interactions& in, u32 start_index, u32 user, i64 cutoff_time_us) {
  Start& start = starts_[start_index];
  u32 taken = 0;
  for (u32 i = start.first; i < start.end; ++i) taken += visit(in, candidates_[i], start_index, user, cutoff_time_us);
  // Some do not count (the user's own, deleted, moved, nobody's): older ones take their place.
  for (u32 place = start.reserve; place-- > 0 && taken < plan_.visits;) {
    Candidate one{nullptr, in.at(start.list, place), 0, NONE};
    one.row = in.row_of(one.entry);
    one.record = in.record(one.row);
    if (one.record == nullptr ||
        !in.linked(one.entry, one.row, one.record, in.item_link, start.item, cutoff_time_us))
      continue;
    one.user = in.named(one.record, in.user_link, cutoff_time_us);
    taken += visit(in, one, start_index, user, cutoff_time_us);
  }
}

// Whether the interaction counts, and if so it is to be looked around.
bool CoVisitWalk::visit(const Interactions& in, const Candidate& candidate, u32 start, u32 user, i64 cutoff_time_us) {
  if (candidate.user >= in.users.limit || candidate.user == user) return false;
  if (in.deleted(in.users, candidate.user, cutoff_time_us)) return false;
  visits_.push_back({candidate.record, candidate.row, candidate.user, start, NONE, 0, {}});
  return true;
}

// Finds the interaction among its user's, and asks for those around it.
void CoVisitWalk::locate(const Interactions& in, Visit& visit, i64 cutoff_time_us) const {
  const auto [list, visible] = in.prefix(in.users.record(visit.user), in.user_link, cutoff_time_us);
  visit.list = list;
  visit.visible = visible;
  const bool plain = in.rows.head(visit.record) == NO_VERSION;
  u32 end = visible;
  if (plain && visible > LOOK_THROUGH_MAX)
    end = in.reader().visible_prefix(list, *in.rows.header, Reader::inline_visible_us(*in.rows.header, visit.record));
  for (u32 place = end; place-- > 0;) {
    const Entry& entry = in.at(list, place);
    if (in.row_of(entry) != visit.row) continue;
    if (!plain && !in.linked(entry, visit.row, visit.record, in.user_link, visit.user, cutoff_time_us)) continue;
    visit.place = place;
    break;
  }
  if (visit.place == NONE) return;
  const u32 low = visit.place - std::min(visit.place, plan_.window);
  const u32 high = std::min(visible, visit.place + plan_.window + 1);
  for (u32 place = low; place < high; ++place) prefetch_entry(in, list, place);
}

void CoVisitWalk::look_around(const Interactions& in, const Visit& visit, i64 cutoff_time_us) {
  if (visit.place == NONE) return;  // retention dropped it from the user's list
  ++out_->visits[starts_[visit.start].history];
  around_.reserve(std::min(visit.visible, 2 * (plan_.window + SAME_TIME_MAX)));
  look<1>(in, visit, cutoff_time_us);
  look<-1>(in, visit, cutoff_time_us);
}

template <i64 DIRECTION>
void CoVisitWalk::look(const Interactions& in, const Visit& visit, i64 cutoff_time_us) {
  constexpr u32 FORWARD = 0, BACKWARD = 1, SAME = 2;
  const u32 walked = starts_[visit.start].item;
  const Entry& own = in.at(visit.list, visit.place);
  const i64 time = in.open_time_us(own);
  u32 gap = 0, same = 0;
  for (i64 place = visit.place + DIRECTION; place >= 0 && place < visit.visible && gap < plan_.window;
       place += DIRECTION) {
    const Entry& entry = in.at(visit.list, static_cast<u32>(place));
    const u32 item = in.item_under(entry, visit.user, cutoff_time_us);
    if (item == NONE) continue;
    const bool at_once = entry.tick() == own.tick() && in.open_time_us(entry) == time;
    if (at_once && same++ == SAME_TIME_MAX) return;
    gap += !at_once;
    if (item == walked) continue;
    around_.add(item, at_once ? SAME : DIRECTION > 0 ? FORWARD : BACKWARD, weight_of_gap_[at_once ? 0 : gap]);
  }
}

void CoVisitWalk::put_pairs(const Start& start) {
  const std::span<const Around::Pair> pairs = around_.pairs();
  i64* history = out_->history.extend(pairs.size());
  i64* item = out_->item.extend(pairs.size());
  float* weight = out_->weight.extend(3 * pairs.size());
  double sums[3] = {0, 0, 0};
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    history[i] = static_cast<i64>(start.history);
    item[i] = pairs[i].item;
    for (u32 kind = 0; kind < 3; ++kind) {
      weight[3 * i + kind] = pairs[i].weight[kind];
      sums[kind] += pairs[i].weight[kind];
    }
  }
  for (u32 kind = 0; kind < 3; ++kind) out_->total[3 * start.history + kind] = static_cast<float>(sums[kind]);
}

}  // namespace nowgraph
