// The C++ tests' own small frame: TEST("promise") { CHECK(...); } in a file is a program that runs every promise in it.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <vector>

namespace testing {

struct Test {
  const char* promise;
  void (*body)();
};

inline std::vector<Test>& tests() {
  static std::vector<Test> all;
  return all;
}

struct Registration {
  Registration(const char* promise, void (*body)()) { tests().push_back({promise, body}); }
};

// Ends the program: a broken promise in a thread must not be lost, nor later checks run on a broken state.
[[noreturn]] inline void fail(const char* file, int line, const char* text) {
  std::cerr << file << ':' << line << ": not true: " << text << std::endl;
  std::_Exit(1);
}

template <typename A, typename B>
void check_equal(const A& left, const B& right, const char* file, int line, const char* text) {
  if (left == right) return;
  std::cerr << file << ':' << line << ": " << left << " is not " << right << std::endl;
  fail(file, line, text);
}

}  // namespace testing

#define TESTING_JOIN_(a, b) a##b
#define TESTING_JOIN(a, b) TESTING_JOIN_(a, b)
#define TEST(promise)                                                                                   \
  static void TESTING_JOIN(test_, __LINE__)();                                                        \
  static const testing::Registration TESTING_JOIN(registration_, __LINE__){promise,                   \
   TESTING_JOIN(test_, __LINE__)}; \
  static void TESTING_JOIN(test_, __LINE__)()
#define CHECK(condition) ((condition) ? void() : testing::fail(__FILE__, __LINE__, #condition))
#define CHECK_EQUAL(left, right) testing::check_equal((left), (right), __FILE__, __LINE__, #left " == " #right)
#define CHECK_THROWS(expression, type)                                             \
  do {                                                                           \
  bool thrown = false;                                                       \
  try {                                                                      \
  (void)(expression);                                                    \
  } catch (const type&) {                                                    \
  thrown = true;                                                         \
  }                                                                          \
  if (!thrown) testing::fail(__FILE__, __LINE__, #expression " throws " #type); \
  } while (false)

int main() {
  if (testing::tests().empty()) {
  std::cerr << "no tests" << std::endl;
  return 1;
  }
  for (const auto& test : testing::tests()) {
  std::cout << test.promise << std::endl;
  try {
  test.body();
  } catch (const std::exception& error) {
  std::cerr << test.promise << ": " << error.what() << std::endl;
  return 1;
  }
  }
  std::cout << testing::tests().size() << " promises kept" << std::endl;
  return 0;
}
