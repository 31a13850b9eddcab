// A sampling plan laid over the graph's links: for every hop and table, which edge types to follow and how far.
#pragma once

#include <stdexcept>
#include <vector>

#include "sampler_rows.hpp"

namespace nowgraph {

enum class Strategy : u8 { most_recent = 0, uniform = 1, recency_weighted = 2 };

// One edge type out of a table, as one hop follows it.
struct Step {
  i16 edge_type;  // 2 * link: child to parent, 2 * link + 1: parent to children
  bool to_parent;
  Strategy strategy;
  u32 number;          // most children taken; parents: not 0
  double half_life;    // recency ranks
  u32 to_table;
  u32 index_in_child;  // of the link
  u32 word_in_parent;
  const TableHeader* to;
};

struct SamplerPlan {
  u32 hops;
  u32 node_limit;
  std::vector<std::vector<std::vector<Step>>> steps;  // [hop][table], in the order of edge types

  // The arrays are [hops, edge types].
  SamplerPlan(const Reader& reader, u32 hops, u32 node_limit, const i32* numbers, const u8* strategies,
              const double* half_lives)
      : hops(hops), node_limit(node_limit), steps(hops) {
    const GraphHeader& graph = reader.graph();
    const u32 edge_types = 2 * graph.link_count;
    for (u32 hop = 0; hop < hops; ++hop) {
      steps[hop].resize(graph.table_count);
      for (u32 edge_type = 0; edge_type < edge_types; ++edge_type) {
        const u32 cell = hop * edge_types + edge_type;
        if (numbers[cell] < 0 || strategies[cell] > 2 || !(half_lives[cell] > 0))
          throw std::invalid_argument("a sampling plan holds a number, strategy or half-life out of range");
        if (numbers[cell] == 0) continue;
        const LinkHeader& link = reader.link(edge_type / 2);
        const bool to_parent = edge_type % 2 == 0;
        const u32 to_table = to_parent ? link.parent : link.child;
        steps[hop][to_parent ? link.child : link.parent].push_back(
            Step{static_cast<i16>(edge_type), to_parent, static_cast<Strategy>(strategies[cell]),
                 static_cast<u32>(numbers[cell]), half_lives[cell], to_table, link.index_in_child,
                 link.word_in_parent, &reader.table(to_table)});
      }
    }
  }
};

}  // namespace nowgraph
