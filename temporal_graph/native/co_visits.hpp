// What was taken beside the items of a history, counted over the live graph as of each question's cut-off.
//
//   user ──► its newest interactions, each with its item                                      Histories
//   item of a history ──► its newest interactions by other users ──► what those users took just before, just after and
//                         at the same moment ──► (item of the history, other item): weights  CoVisits
//   item ──► how many interactions, since when, until when                                   Degrees
//
// An interaction is a row that links a user and an item. It counts when it is visible at the cut-off, not deleted, and
// names, as of the cut-off, the user it is looked for under and an item that is not deleted. It stands in a user's
// order at the time its link to that user opened, which for a row that never moved is its visible time; ties by key.
//
// One walk a thread: it owns a reader's slot and its scratch memory.
#pragma once

#include <algorithm>
#include <memory>
#include <span>
#include <vector>

#include "sampler_draw.hpp"
#include "sampler_rows.hpp"
#include "sampler_sample.hpp"

namespace nowgraph {

// At one moment a user may have taken more than any basket holds (history loaded under one time): beyond this many on
// a side, a visit is not looked around any further on that side.
inline constexpr u32 SAME_TIME_MAX = 1024;
// Rows that were moved or deleted are told from others one by one; of longer lists they are counted like the others.
inline constexpr u32 DEGREE_EXACT_MAX = 1024;

struct Histories {
  Column<i64> offset;                             // questions + 1
  Column<i64> interaction, item;                  // rows, newest first
  Column<i64> event_time_us, visible_time_us;     // of the row; of its link to the user
};

struct CoVisits {
  Column<i64> offset;         // questions + 1, over pairs
  Column<i64> history, item;  // pairs: an index into the histories' items, the other item
  Column<float> weight;       // [pairs, 3]: taken after, before, at the same time
  Column<float> total;        // [history entries, 3]: sums over the entry's pairs
  Column<i64> visits;         // of each history entry: how many interactions of its item were looked around

  void clear() {
    offset.resize(0);
    history.resize(0);
    item.resize(0);
    weight.resize(0);
    total.resize(0);
    visits.resize(0);
  }
};

struct Degrees {
  Column<i64> count, first_us, last_us;  // ALWAYS_US where the count is 0
};

struct CoVisitPlan {
  u32 visits;       // newest interactions of an item that are looked around
  u32 window;       // how many places on each side
  double exponent;  // a place at distance g weighs g^-exponent
};

// The interactions as one pinned request sees them.
class Interactions {
 public:
  Interactions(Reader& reader, u32 user_link, u32 item_link)
      : reader_(reader),
        snapshot_(reader.pin()),
        user_link(reader.link(user_link)),
        item_link(reader.link(item_link)),
        rows(reader, reader.link(user_link).child, snapshot_),
        users(reader, reader.link(user_link).parent, snapshot_),
        items(reader, reader.link(item_link).parent, snapshot_),
        plain_(none_moved(rows)),
        items_stay_(none_moved(items)) {}
  ~Interactions() { reader_.unpin(); }
  Interactions(const Interactions&) = delete;
  Interactions& operator=(const Interactions&) = delete;

  // The entries of a parent's list that opened at or before the cut-off: [0, visible).
  struct Prefix {
    List list;
    u32 visible;
  };
  NOWGRAPH_INLINE Prefix prefix(const char* parent_record, const LinkHeader& link, i64 cutoff_time_us) const {
    const List list = reader_.list(Reader::list_word_of(parent_record, link.word_in_parent));
    return {list, reader_.visible_prefix(list, *rows.header, cutoff_time_us)};
  }
  const Reader& reader() const { return reader_; }
  NOWGRAPH_INLINE const Entry& at(const List& list, u32 place) const { return reader_.at(list, place); }
  NOWGRAPH_INLINE u32 row_of(const Entry& entry) const { return reader_.child(entry); }
  // nullptr: not published.
  NOWGRAPH_INLINE const char* record(u32 row) const { return row < rows.limit ? rows.record(row) : nullptr; }
  NOWGRAPH_INLINE i64 open_time_us(const Entry& entry) const { return reader_.open_time_us(*rows.header, entry); }

  // Whether a published row of the prefix is shown under this parent at the cut-off.
  NOWGRAPH_INLINE bool linked(const Entry& entry, u32 row, const char* record, const LinkHeader& link, u32 parent_row,
                              i64 cutoff_time_us) const {
    return reader_.linked(snapshot_, link.child, *rows.header, entry, row, record, link.index_in_child, parent_row,
                          cutoff_time_us);
  }
  // Whether no row of the table was ever moved or deleted: every published one that a list held by now is shown there
  // once its link has opened.
  static bool none_moved(const TableRows& of) { return of.header->moved.load(std::memory_order_acquire) == 0; }
  // Whether a list that was read before holds published rows only.
  NOWGRAPH_INLINE bool all_published() const {
    return rows.header->row_count.load(std::memory_order_acquire) == rows.limit;
  }
  // The row that a linked interaction names, deleted or not; NONE for null.
  NOWGRAPH_INLINE u32 named(const char* record, const LinkHeader& link, i64 cutoff_time_us) const {
    if (__builtin_expect(rows.head(record) == NO_VERSION, 1))
      return Reader::inline_parent(*rows.header, record, link.index_in_child);
    return reader_.parent(snapshot_, *rows.header, record, link.index_in_child, cutoff_time_us);
  }
  NOWGRAPH_INLINE bool deleted(const TableRows& of, u32 row, i64 cutoff_time_us) const {
    if (of.uniform()) return false;
    const char* record = of.record(row);
    return of.head(record) != NO_VERSION &&
           reader_.resolve(snapshot_, *of.header, record, cutoff_time_us).state == State::hidden;
  }
  NOWGRAPH_INLINE u32 item_of(const char* record, i64 cutoff_time_us) const {
    const u32 item = named(record, item_link, cutoff_time_us);
    return item < items.limit && !deleted(items, item, cutoff_time_us) ? item : NONE;
  }
  // The item of an entry of a user's visible prefix, or NONE where the interaction does not count.
  NOWGRAPH_INLINE u32 item_under(const Entry& entry, u32 user, i64 cutoff_time_us) const {
    if (__builtin_expect(plain_, 1)) {  // a link that opened since is not published
      if (entry.is_open() || entry.target >= rows.limit) return NONE;
      const u32 item = Reader::inline_parent(*rows.header, rows.record(entry.target), item_link.index_in_child);
      return item < items.limit && (items_stay_ || !deleted(items, item, cutoff_time_us)) ? item : NONE;
    }
    const u32 row = row_of(entry);
    const char* row_record = record(row);
    if (row_record == nullptr || !linked(entry, row, row_record, user_link, user, cutoff_time_us)) return NONE;
    return item_of(row_record, cutoff_time_us);
  }
  i64 event_time_us(const char* record, i64 cutoff_time_us) const {
    return reader_.resolve(snapshot_, *rows.header, record, cutoff_time_us).event_time_us;
  }
  // The newest entries of a list, or the directory's end of a long one.
  NOWGRAPH_INLINE void prefetch_newest(const char* parent_record, const LinkHeader& link) const {
    const u64 word = Reader::list_word_of(parent_record, link.word_in_parent);
    const u32 count = list_count(word);
    if (count == 0) return;
    if (count > HUB_ENTRIES) {
      prefetch(reader_.arena().at<HubBlock>(list_offset(word)) + (count - 1) / HUB_ENTRIES);
      return;
    }
    const auto* newest = reinterpret_cast<const char*>(reader_.arena().at<Entry>(list_offset(word)) + count - 1);
    prefetch(newest);
    if (count > 64 / sizeof(Entry)) prefetch(newest - 64);
    if (count > 128 / sizeof(Entry)) prefetch(newest - 128);
  }

 private:
  Reader& reader_;
  Snapshot snapshot_;

 public:
  const LinkHeader& user_link;
  const LinkHeader& item_link;
  const TableRows rows, users, items;

 private:
  const bool plain_, items_stay_;  // as of the pin
};

// What was met around one item: a weight of each kind for every other item, in the order in which they were met. Which
// items those are is emptied in O(1): a slot counts only when it carries the current tag.
class Around {
 public:
  struct Pair {
    u32 item;
    float weight[3];
  };

  // Of this many items.
  void resize(u32 items) {
    if (slots_.size() < items) slots_.resize(items, Slot{0, 0});
  }
  void clear() {
    if (++tag_ == 0) {
      std::fill(slots_.begin(), slots_.end(), Slot{0, 0});
      tag_ = 1;
    }
    count_ = 0;
  }
  // Room for `more` calls of add.
  void reserve(u32 more) {
    if (pairs_.size() < std::size_t{count_} + more) pairs_.resize(2 * pairs_.size() + more);
  }
  NOWGRAPH_INLINE void add(u32 item, u32 kind, float weight) {
    Slot& slot = slots_[item];
    if (slot.tag != tag_) {
      slot = {tag_, count_};
      pairs_[count_++] = {item, {0, 0, 0}};
    }
    pairs_[slot.place].weight[kind] += weight;
  }
  std::span<const Pair> pairs() const { return {pairs_.data(), count_}; }

 private:
  struct Slot {
    u32 tag, place;
  };
  std::vector<Slot> slots_;
  std::vector<Pair> pairs_;
  u32 tag_ = 0, count_ = 0;
};

class CoVisitWalk {
 public:
  // Both links are of the table of interactions; throws std::invalid_argument where they are not.
  CoVisitWalk(Arena& arena, u32 user_link, u32 item_link);

  // The newest `limit` interactions of each user, -1 for nobody.
  Histories histories(const i64* user_row, const i64* cutoff_time_us, std::size_t count, u32 limit);

  // `offset` [count + 1] over `item`; an item of -1 is walked by nobody, and of an item that stands more than once in
  // a history the first, newest entry gets all pairs. Throws std::out_of_range for rows that are not there.
  std::unique_ptr<CoVisits> walk(const i64* offset, const i64* item, std::size_t entries, const i64* user_row,
                                 const i64* cutoff_time_us, std::size_t count, const CoVisitPlan& plan);

  Degrees degrees(const i64* item_row, const i64* cutoff_time_us, std::size_t count);

  const std::shared_ptr<Pool<CoVisits>>& pool() const { return pool_; }

 private:
  // An entry of a history whose item is walked: its list's newest interactions are candidates, the rest is in reserve.
  struct Start {
    u64 history;
    u32 item;
    u32 first, end;  // of candidates_
    u32 reserve;     // [0, reserve) of the list: older than the candidates
    List list;
  };
  struct Candidate {
    const char* record;  // nullptr: not published, or not of the item any more
    Entry entry;
    u32 row, user;
  };
  // One interaction of a start's item, to be looked around.
  struct Visit {
    const char* record;
    u32 row, user;
    u32 start;
    u32 place, visible;  // in the user's list; place NONE: not there
    List list;
  };

  void walk_one(const Interactions& in, const i64* item, u64 low, u64 high, u32 user, i64 cutoff_time_us);
  void choose(const Interactions& in, const i64* item, u64 low, u64 high, i64 cutoff_time_us);
  void take_visits(const Interactions& in, u32 start, u32 user, i64 cutoff_time_us);
  bool visit(const Interactions& in, const Candidate& candidate, u32 start, u32 user, i64 cutoff_time_us);
  void locate(const Interactions& in, Visit& visit, i64 cutoff_time_us) const;
  void look_around(const Interactions& in, const Visit& visit, i64 cutoff_time_us);
  template <i64 DIRECTION>
  void look(const Interactions& in, const Visit& visit, i64 cutoff_time_us);
  void put_pairs(const Start& start);

  Reader reader_;
  u32 user_link_, item_link_;
  CoVisitPlan plan_{};
  std::shared_ptr<Pool<CoVisits>> pool_ = std::make_shared<Pool<CoVisits>>();
  CoVisits* out_ = nullptr;
  std::vector<float> weight_of_gap_;
  NumberSet walked_;
  Around around_;
  std::vector<Start> starts_;
  std::vector<Candidate> candidates_;
  std::vector<Visit> visits_;
};

}  // namespace nowgraph
