// Where walks start: rows of the graph or events that are not in it, in one form.
#pragma once

#include <algorithm>
#include <stdexcept>
#include <string_view>
#include <vector>

#include "decode.hpp"
#include "sampler_rows.hpp"

namespace nowgraph {

enum class Origin : u8 {
  first_version,  // a row, as it arrived
  as_of,          // a row, as it stood at the cut-off
  event,          // not in the graph
};

struct Seed {
  Origin origin;
  bool given_parents;    // in SeedRows::parents, from `first_parent`; else the record's own at the cut-off
  u32 table;
  u32 row;               // that is never its own neighbor; NONE: unknown
  const char* record;    // nullptr: none
  i64 cutoff_time_us;
  i64 event_time_us;
  i64 known_time_us;
  i32 version;
  u32 first_parent;
  u32 change;            // of SeedRows::changes, for events
};

// An event that is no seed; the index is its place in the request.
struct SeedRefused : std::invalid_argument {
  SeedRefused(std::size_t index, const Refusal& refusal)
      : std::invalid_argument("event " + std::to_string(index) + " is no seed: " + refusal.reason + ": " +
                              refusal.detail) {}
};

class SeedRows {
 public:
  SeedRows(const Reader& reader, const Catalog& catalog)
      : reader_(reader), decoder_(reader.arena(), catalog) {}

  const std::vector<Seed>& seeds() const { return seeds_; }
  u32 parent(const Seed& seed, u32 index_in_child) const { return parents_[seed.first_parent + index_in_child]; }
  const RowChange& change(const Seed& seed) const { return changes_[seed.change]; }

  void take_rows(u32 table, const i64* rows, const i64* cutoffs, std::size_t count, bool as_of,
                 const TableRows* tables, const Snapshot& snapshot) {
    clear(count);
    const TableRows& from = tables[table];
    for (std::size_t i = 0; i < count; ++i) {
      if (rows[i] >= static_cast<i64>(from.limit) || rows[i] < (as_of ? -1 : 0))
        throw std::out_of_range("seed " + std::to_string(i) + " is no row of table " + from.header->name);
      Seed& seed = seeds_[i];
      seed = Seed{as_of ? Origin::as_of : Origin::first_version, false, table, static_cast<u32>(rows[i]), nullptr,
                  cutoffs[i], ALWAYS_US, ALWAYS_US, -1, 0, 0};
      if (rows[i] < 0) continue;
      seed.row = static_cast<u32>(rows[i]);
      seed.record = from.record(seed.row);
    }
    (void)snapshot;
  }

  // What a seed's record says of it; put off until the walk, when the record has been prefetched.
  void resolve(Seed& seed, const TableRows* tables, const Snapshot& snapshot) {
    if (seed.record == nullptr || seed.origin == Origin::event) return;
    const TableHeader& table = *tables[seed.table].header;
    if (seed.origin == Origin::as_of) {
      const Visible found = reader_.resolve(snapshot, table, seed.record, seed.cutoff_time_us);
      if (found.state != State::visible) return;
      seed.version = found.version;
      seed.event_time_us = found.event_time_us;
      seed.known_time_us = found.known_time_us;
      return;
    }
    resolve_first(seed, table, snapshot);
  }

  void take_events(const std::vector<std::string_view>& events, const i64* cutoffs, const TableRows* tables) {
    clear(events.size());
    if (changes_.size() < events.size()) changes_.resize(events.size());
    Refusal refusal;
    // The decoder keeps what it had to copy until its next call, and the cells are read only later: one event at a
    // time is decoded where there are several, see `decode_again`.
    bytes_ = &events;
    for (std::size_t i = 0; i < events.size(); ++i) {
      RowChange& change = changes_[i];
      if (!decoder_.decode(events[i], change, refusal)) throw SeedRefused(i, refusal);
      seeds_[i] = seed_of(change, static_cast<u32>(i), cutoffs[i], tables);
    }
  }
  // The event's cells, valid until the next call.
  const RowChange& decode_again(const Seed& seed) {
    Refusal refusal;
    RowChange& change = changes_[seed.change];
    if (bytes_->size() > 1) decoder_.decode((*bytes_)[seed.change], change, refusal);
    return change;
  }
  Seed& at(std::size_t i) { return seeds_[i]; }

 private:
  void clear(std::size_t count) {
    seeds_.resize(count);
    parents_.clear();
  }

  void resolve_first(Seed& seed, const TableHeader& table, const Snapshot& snapshot) {
    const u32 head = Reader::version_head(table, seed.record).load(std::memory_order_acquire);
    if (head == NO_VERSION) {
      if (Reader::inline_bare(table, seed.record)) return;
      seed.version = 0;
      seed.event_time_us = Reader::inline_event_us(table, seed.record);
      seed.known_time_us = Reader::inline_known_us(table, seed.record);
      give_parents(seed, table, [&](u32 link) { return Reader::inline_parent(table, seed.record, link); });
      return;
    }
    reader_.versions(table, seed.record, head, snapshot.sequence, versions_);
    if (versions_.empty()) return;
    seed.version = 0;
    seed.event_time_us = versions_.front().event_time_us;
    seed.known_time_us = versions_.front().known_time_us;
    give_parents(seed, table, [&](u32 link) {
      const char* payload = reader_.first_cell(snapshot, table, seed.record, head, table.column_count + link);
      return payload == nullptr ? NONE : load<u32>(payload);
    });
  }

  template <class ParentOf>
  void give_parents(Seed& seed, const TableHeader& table, ParentOf parent_of) {
    seed.given_parents = true;
    seed.first_parent = static_cast<u32>(parents_.size());
    for (u32 link = 0; link < table.link_count; ++link) parents_.push_back(parent_of(link));
  }

  Seed seed_of(const RowChange& change, u32 index, i64 cutoff_time_us, const TableRows* tables) {
    const TableHeader& table = *tables[change.table].header;
    Seed seed{Origin::event, false, change.table, NONE, nullptr, cutoff_time_us, ALWAYS_US, ALWAYS_US, 0, 0, index};
    if (table.has_time && change.has_event_time) {
      seed.event_time_us = change.event_time_us;
      seed.known_time_us = change.has_known_time ? change.known_time_us : change.event_time_us;
    }
    seed.row = row_of(reader_, change.key, tables[change.table]);
    if (seed.row != NONE) seed.record = tables[change.table].record(seed.row);
    give_parents(seed, table, [](u32) { return NONE; });
    for (const CellValue& cell : change.cells) {
      if (cell.index < table.column_count || cell.is_null) continue;
      const u32 link = cell.index - table.column_count;
      parents_[seed.first_parent + link] = row_of(reader_, cell.key, tables[reader_.link(table.links[link]).parent]);
    }
    return seed;
  }

  const Reader& reader_;
  Decoder decoder_;
  std::vector<Seed> seeds_;
  std::vector<u32> parents_;
  std::vector<RowChange> changes_;
  std::vector<Reader::VersionKey> versions_;
  const std::vector<std::string_view>* bytes_ = nullptr;
};

}  // namespace nowgraph
