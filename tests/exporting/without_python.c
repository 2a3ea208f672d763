/* Translates with an exported model in C alone: TensorFlow's C API and tensorflow-text's operations, no Python.
 *
 *     without_python OPS.so FOLDER INPUTS OUTPUTS [INPUTS OUTPUTS]... < texts
 *
 * INPUTS and OUTPUTS name tensors of a signature, as in "serving_default_text:0"; several are parted by commas. A line of
 * standard input holds one text for each input, parted by tabs; inputs that a signature lacks are left out. Every output
 * is printed as its name and sizes, then one value a line.
 */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensorflow/c/c_api.h"
#include "tensorflow/c/tf_tstring.h"

#define MOST_TEXTS 256
#define MOST_TENSORS 16
#define LONGEST_LINE 65536

static char *texts[MOST_TENSORS][MOST_TEXTS];
static int num_texts;

static void check(TF_Status *status, const char *what) {
  if (TF_GetCode(status) == TF_OK) return;
  fprintf(stderr, "%s: %s\n", what, TF_Message(status));
  exit(1);
}

static void read_texts(void) {
  static char line[LONGEST_LINE];
  while (num_texts < MOST_TEXTS && fgets(line, sizeof line, stdin)) {
    char *rest = line;
    line[strcspn(line, "\n")] = 0;
    for (int column = 0; column < MOST_TENSORS && rest; ++column) texts[column][num_texts] = strdup(strsep(&rest, "\t"));
    ++num_texts;
  }
}

/* string [N] */
static TF_Tensor *column_tensor(int column) {
  int64_t size = num_texts;
  TF_Tensor *tensor = TF_AllocateTensor(TF_STRING, &size, 1, sizeof(TF_TString) * num_texts);
  TF_TString *strings = TF_TensorData(tensor);
  for (int n = 0; n < num_texts; ++n) {
    const char *text = texts[column][n] ? texts[column][n] : "";
    TF_StringInit(&strings[n]);
    TF_StringCopy(&strings[n], text, strlen(text));
  }
  return tensor;
}

static int find_tensors(TF_Graph *graph, const char *names, TF_Output *found, char **labels) {
  int count = 0;
  char *rest = strdup(names), *name;
  while ((name = strsep(&rest, ","))) {
    labels[count] = strdup(name);
    char *colon = strrchr(name, ':');
    int index = colon ? atoi(colon + 1) : 0;
    if (colon) *colon = 0;
    found[count].oper = TF_GraphOperationByName(graph, name);
    found[count].index = index;
    if (!found[count].oper) {
      fprintf(stderr, "the graph has no operation %s\n", name);
      exit(1);
    }
    ++count;
  }
  return count;
}

static void print_value(const TF_Tensor *tensor, int64_t n) {
  const void *data = TF_TensorData(tensor);
  switch (TF_TensorType(tensor)) {
    case TF_STRING: {
      const TF_TString *text = (const TF_TString *)data + n;
      fwrite(TF_StringGetDataPointer(text), 1, TF_StringGetSize(text), stdout);
      putchar('\n');
      break;
    }
    case TF_FLOAT: printf("%.6g\n", ((const float *)data)[n]); break;
    case TF_INT32: printf("%d\n", ((const int32_t *)data)[n]); break;
    case TF_BOOL: printf("%d\n", ((const unsigned char *)data)[n] != 0); break;
    default: printf("?\n");
  }
}

static void print_tensor(const char *label, const TF_Tensor *tensor) {
  printf("# %s", label);
  for (int axis = 0; axis < TF_NumDims(tensor); ++axis) printf(" %lld", (long long)TF_Dim(tensor, axis));
  putchar('\n');
  for (int64_t n = 0; n < TF_TensorElementCount(tensor); ++n) print_value(tensor, n);
}

static void run(TF_Session *session, TF_Graph *graph, const char *inputs, const char *outputs, TF_Status *status) {
  TF_Output given[MOST_TENSORS], wanted[MOST_TENSORS];
  TF_Tensor *values[MOST_TENSORS], *results[MOST_TENSORS];
  char *given_labels[MOST_TENSORS], *wanted_labels[MOST_TENSORS];
  int num_given = find_tensors(graph, inputs, given, given_labels);
  int num_wanted = find_tensors(graph, outputs, wanted, wanted_labels);
  for (int n = 0; n < num_given; ++n) values[n] = column_tensor(n);
  TF_SessionRun(session, NULL, given, values, num_given, wanted, results, num_wanted, NULL, 0, NULL, status);
  check(status, "running the graph");
  for (int n = 0; n < num_wanted; ++n) print_tensor(wanted_labels[n], results[n]);
}

int main(int argc, char **argv) {
  if (argc < 5 || argc % 2 == 0) {
    fprintf(stderr, "usage: %s OPS.so FOLDER INPUTS OUTPUTS [INPUTS OUTPUTS]... < texts\n", argv[0]);
    return 2;
  }
  TF_Status *status = TF_NewStatus();
  TF_LoadLibrary(argv[1], status);
  check(status, "loading tensorflow-text's operations");
  const char *tags[] = {"serve"};
  TF_Graph *graph = TF_NewGraph();
  TF_Session *session =
      TF_LoadSessionFromSavedModel(TF_NewSessionOptions(), NULL, argv[2], tags, 1, graph, NULL, status);
  check(status, "loading the model");
  read_texts();
  printf("TensorFlow %s, no Python\n", TF_Version());
  for (int n = 3; n < argc; n += 2) run(session, graph, argv[n], argv[n + 1], status);
  return 0;
}
