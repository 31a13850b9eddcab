// Neighborhoods cut at each seed's own time, breadth first, and their cells.
//
//   seeds -> pin -> per seed: walk (hop by hop) -> gather cells while the records are near -> Sample
//
// A hop works on its frontier in three passes over a bounded stretch, so that memory is waited for in parallel and not
// row by row:
//   choose   reads a row's list word and finds which of its entries are taken   (prefetches list blocks ahead)
//   fetch    reads those entries                                               (prefetches the children's records)
//   accept   reads the records: visible or not, new or seen; writes nodes and edges
//
// One sampler a thread: it owns a reader's slot, its scratch memory and its stream of random numbers.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "sampler_draw.hpp"
#include "sampler_gather.hpp"
#include "sampler_plan.hpp"
#include "sampler_sample.hpp"
#include "sampler_seed.hpp"
#include "sampler_seen.hpp"
#include "sampler_session.hpp"

namespace nowgraph {

class Sampler {
 public:
  Sampler(Arena& arena, u32 hops, u32 node_limit, const i32* numbers, const u8* strategies, const double* half_lives,
          u64 seed)
      : reader_(arena),
        catalog_(arena),
        plan_(reader_, hops, node_limit, numbers, strategies, half_lives),
        seeds_(reader_, catalog_),
        sessions_(reader_, catalog_),
        gather_(reader_),
        seed_(seed),
        pool_(std::make_shared<SamplePool>()) {}

  // Rows of the graph, each in its first version with its outcome null (as_of false), or as they stood at the cut-off.
  // A row of -1 is an unknown key. The request's number seeds the draws: the same number, the same sample.
  std::unique_ptr<Sample> sample_rows(u32 table, const i64* rows, const i64* cutoffs, std::size_t count, bool as_of,
                                      u64 request) {
    std::unique_ptr<Sample> sample = begin(request);
    Unpin unpin{reader_};
    seeds_.take_rows(table, rows, cutoffs, count, as_of, tables_.data(), snapshot_);
    walk_all(*sample);
    return sample;
  }

  // Serialized RowEvents that are not in the graph: the seed is virtual, its links are followed by key.
  std::unique_ptr<Sample> sample_events(const std::vector<std::string_view>& events, const i64* cutoffs, u64 request) {
    std::unique_ptr<Sample> sample = begin(request);
    Unpin unpin{reader_};
    seeds_.take_events(events, cutoffs, tables_.data());
    walk_all(*sample);
    return sample;
  }

  // As sample_rows as of the cut-offs, each seed with its session: virtual rows, which come first and count among the
  // children that an edge type, from the seeds' table to its children, takes of the seed. A question is asked at its
  // cut-off or later, and its session reaches to then.
  std::unique_ptr<Sample> sample_sessions(u32 table, const i64* rows, const SessionEvents& sessions, u32 edge_type,
                                          const i64* cutoffs, const i64* asked, std::size_t count, u64 request) {
    std::unique_ptr<Sample> sample = begin(request);
    Unpin unpin{reader_};
    seeds_.take_rows(table, rows, cutoffs, count, true, tables_.data(), snapshot_);
    sessions_.take(sessions, edge_type, asked, seeds_.seeds(), tables_.data(), snapshot_);
    walk_all(*sample);
    return sample;
  }

  const std::shared_ptr<SamplePool>& pool() const { return pool_; }
  const Reader& reader() const { return reader_; }
  u64 next_request() { return requests_++; }

 private:
  struct Unpin {
    Reader& reader;
    ~Unpin() { reader.unpin(); }
  };

  // The entries of one list that one step may take, or the one parent.
  struct Group {
    const Step* step;
    u32 node;     // of the neighborhood
    u32 visible;  // length of the visible prefix; parents: their row
    u32 first;    // of its candidates
    u32 count;
    u32 known;    // parents: the node it is for certain, or NONE
    bool drawn;   // positions are in positions_, else the newest `count`
    List list;
  };
  struct Candidate {
    const char* record;  // nullptr: not published
    Entry entry;
    u32 row;
  };

  // The seed's part of the sample by raw pointers: the inner loop keeps them in registers.
  struct Cursor {
    u8* table;
    u8* hop;
    i64* row;
    i64* event_time_us;
    i64* known_time_us;
    i32* parent;
    i32* version;
    i16* link;
    i32* edge_source;
    i32* edge_target;
    i16* edge_link;
    const char** record;
    u32 nodes, edges;
    i32 base;
  };

  // Few enough that what was prefetched is still in the first two caches when it is read.
  static constexpr u32 CANDIDATES_MAX = 1024;
  // How far ahead list blocks are asked for, in rows of the frontier.
  static constexpr u32 AHEAD_BLOCK = 10, AHEAD_HUB = 5;

  NOWGRAPH_INLINE static void put_edge(Cursor& out, const Step& step, u32 from, u32 to) {
    out.edge_source[out.edges] = out.base + static_cast<i32>(from);
    out.edge_target[out.edges] = out.base + static_cast<i32>(to);
    out.edge_link[out.edges] = step.edge_type;
    ++out.edges;
  }
  NOWGRAPH_INLINE static void put_node(Cursor& out, const Step& step, u32 from, u8 hop, const char* record, u32 row,
                                       const Visible& shown) {
    const u32 node = out.nodes++;
    out.table[node] = static_cast<u8>(step.to_table);
    out.hop[node] = hop;
    out.row[node] = row;
    out.event_time_us[node] = shown.event_time_us;
    out.known_time_us[node] = shown.known_time_us;
    out.parent[node] = out.base + static_cast<i32>(from);
    out.version[node] = shown.version;
    out.link[node] = step.edge_type;
    out.record[node] = record;
  }

  std::unique_ptr<Sample> begin(u64 request);
  void walk_all(Sample& sample);
  void walk(const Seed& seed);
  void put_seed(const Seed& seed);
  void gather(const Seed& seed);
  void expand_with_session(const Seed& seed);
  u32 put_session(const Step& step);
  NOWGRAPH_INLINE bool is_of_session(u32 node) const { return node - session_first_ < session_nodes_.size(); }
  NOWGRAPH_INLINE u32 parent_of(const Seed& seed, u32 node, const Step& step) const;
  void find_unread();
  bool leads_to_unread(u32 hop, u32 start, u32 end) const;
  void expand_to_unread(const Seed& seed, u32 hop, u32 start, u32 end);
  void choose(const Seed& seed, u32 node, std::span<const Step> steps, bool lists_next);
  void add_parent(const Step& step, u32 node, u32 known);
  void choose_children(const Step& step, u32 node, const char* record, i64 cutoff_time_us);
  void fetch(bool lists_next);
  void accept(const Seed& seed, u32 hop);
  template <class Take>
  void replenish(const Group& group, u32 accepted, u32 parent_row, const Seed& seed, Take&& take);
  bool counts(const Step& step, u32 parent_row, const Entry& entry, const Seed& seed) const;
  void reserve(std::size_t more);
  void prefetch_newest(const char* record, const Step& step) const;
  void ahead_block(const std::vector<std::vector<Step>>& steps, u32 node) const;
  void ahead_hub(const std::vector<std::vector<Step>>& steps, u32 node) const;
  void preview(std::size_t seed) const;

  Reader reader_;
  Catalog catalog_;
  SamplerPlan plan_;
  SeedRows seeds_;
  SessionRows sessions_;
  Gather gather_;
  u64 seed_;
  u64 request_ = 0, requests_ = 0;
  std::shared_ptr<SamplePool> pool_;

  Snapshot snapshot_;
  std::vector<TableRows> tables_;
  std::vector<u8> unread_;  // [hop, table]
  Sample* sample_ = nullptr;
  Cursor cursor_{};
  SeenRows seen_;
  Random random_;
  NumberSet tried_;
  Column<const char*> records_;  // of the neighborhood's nodes
  // Of the seed that is being walked from. Its session's nodes are session_first_ and those that follow.
  std::span<const SessionRow> session_;
  Column<const SessionRow*> session_nodes_;
  u32 session_first_ = 0;
  Column<Group> groups_;
  Column<u32> positions_;
  Column<Candidate> candidates_;
  u32 candidate_count_ = 0;
};

}  // namespace nowgraph
