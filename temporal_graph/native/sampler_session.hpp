// The sessions of a request: rows that it brings and the graph does not hold.
//
//   serialized RowEvents, oldest first -> decoded and checked -> SessionRow, newest first: children of the seed
//
// All rows of a request hang on their seeds by one link. They are checked before the first walk, so that a request with
// a bad one gives nothing; their cells are decoded again when they are gathered, as those of seeds are.
#pragma once

#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "decode.hpp"
#include "sampler_rows.hpp"
#include "sampler_seed.hpp"

namespace nowgraph {

// Beyond this it is no session but a history, which belongs into the graph.
inline constexpr u32 SESSION_EVENTS_MAX = 4096;

// The events of all sessions, one after another: those of session b are [offset[b], offset[b + 1]).
struct SessionEvents {
  std::vector<std::string_view> events;
  std::vector<std::size_t> offset{0};
};

// A row that is not in the graph, reached from its seed.
struct SessionRow {
  u32 row;    // the graph's row of the same key, which is never a second node; NONE: it has none
  u32 event;  // place among the request's events
  u32 first_parent;
  i64 event_time_us;
  i64 known_time_us;
};

// An event that is no row of its session; both indices are places in the request.
struct SessionRefused : std::invalid_argument {
  SessionRefused(std::size_t session, std::size_t event, const Refusal& refusal)
      : std::invalid_argument("event " + std::to_string(event) + " of session " + std::to_string(session) +
                              " is no row of it: " + refusal.reason + ": " + refusal.detail) {}
};

class SessionRows {
 public:
  SessionRows(const Reader& reader, const Catalog& catalog)
      : reader_(reader), catalog_(catalog), decoder_(reader.arena(), catalog) {}

  void clear() { offset_.clear(); }
  // One session for each seed, over an edge type that leads from the seeds' table to its children. The seeds are
  // entities as of their cut-offs, their sessions reach to when they are asked. The events' bytes outlive the walks.
  void take(const SessionEvents& sessions, u32 edge_type, const i64* asked, const std::vector<Seed>& seeds,
            const TableRows* tables, const Snapshot& snapshot);

  // Of one seed, newest first; none for a request without sessions.
  std::span<const SessionRow> of(std::size_t seed) const {
    if (offset_.empty()) return {};
    return {rows_.data() + offset_[seed], rows_.data() + offset_[seed + 1]};
  }
  u32 edge_type() const { return edge_type_; }
  u32 parent(const SessionRow& row, u32 index_in_child) const { return parents_[row.first_parent + index_in_child]; }
  // The row's cells, valid until the next call.
  const RowChange& decode_again(const SessionRow& row) {
    Refusal refusal;
    decoder_.decode((*events_)[row.event], change_, refusal);
    return change_;
  }

 private:
  // A row of the session that is being taken, with what orders it and tells it from others.
  struct Given {
    SessionRow row;
    i64 visible_time_us;
    std::string key;  // empty: without one
  };

  bool check(const LinkHeader& link, const Seed& seed, i64 asked_us, const TableRows* tables, Refusal& refusal);
  bool check_times(const TableHeader& table, i64 asked_us, Refusal& refusal);
  SessionRow row_of_change(const LinkHeader& link, u32 event, const TableRows* tables);
  KeyValue key_of_change(const TableHeader& table) const;
  bool is_known(const LinkHeader& link, const SessionRow& row, const Seed& seed, const TableRows* tables,
                const Snapshot& snapshot) const;
  void keep_newest_first();

  const Reader& reader_;
  const Catalog& catalog_;
  Decoder decoder_;
  RowChange change_;
  u32 edge_type_ = 0;
  const std::vector<std::string_view>* events_ = nullptr;
  std::vector<SessionRow> rows_;
  std::vector<std::size_t> offset_;
  std::vector<u32> parents_;
  std::vector<Given> given_;
  std::unordered_set<std::string_view> keys_;
};

}  // namespace nowgraph
