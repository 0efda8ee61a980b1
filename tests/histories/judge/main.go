// Judges histories by porcupine. It knows nothing of coupons: for each step it asks whoever started it.
//
// In:  `check N MILLISECONDS`, then N lines `CALLED RETURNED`, the interval of each operation; -1 for never.
// Out: `? STATE OPERATION`, answered by the state after it or by -1 where it is impossible; each is asked once.
// Out: `! Ok`, `! Illegal` or `! Unknown`, when there was too little time.
package main

import (
	"bufio"
	"fmt"
	"math"
	"os"
	"time"

	"github.com/anishathalye/porcupine"
)

type step struct{ state, operation int }

func main() {
	in, out := bufio.NewReader(os.Stdin), bufio.NewWriter(os.Stdout)
	for {
		var count, milliseconds int
		if _, err := fmt.Fscanf(in, "check %d %d\n", &count, &milliseconds); err != nil {
			return
		}
		operations := make([]porcupine.Operation, count)
		for i := range operations {
			var called, returned int64
			must(fmt.Fscanf(in, "%d %d\n", &called, &returned))
			if returned < 0 {
				returned = math.MaxInt64
			}
			operations[i] = porcupine.Operation{Input: i, Call: called, Return: returned}
		}
		known := map[step]int{}
		model := porcupine.Model{
			Init: func() interface{} { return 0 },
			Step: func(state, operation, _ interface{}) (bool, interface{}) {
				asked := step{state.(int), operation.(int)}
				next, ok := known[asked]
				if !ok {
					fmt.Fprintf(out, "? %d %d\n", asked.state, asked.operation)
					out.Flush()
					must(fmt.Fscanf(in, "%d\n", &next))
					known[asked] = next
				}
				return next >= 0, next
			},
			Hash: func(state interface{}) uint64 { return uint64(state.(int)) },
		}
		within := time.Duration(milliseconds) * time.Millisecond
		fmt.Fprintf(out, "! %s\n", verdict(model, operations, within))
		out.Flush()
	}
}

// With a model that watches the clock itself: porcupine's own time-out would leave a check behind that still asks.
func verdict(model porcupine.Model, operations []porcupine.Operation, within time.Duration) porcupine.CheckResult {
	deadline, late := time.Now().Add(within), false
	inner := model.Step
	model.Step = func(state, input, output interface{}) (bool, interface{}) {
		if late = late || time.Now().After(deadline); late {
			return false, state
		}
		return inner(state, input, output)
	}
	if porcupine.CheckOperations(model, operations) {
		return porcupine.Ok
	}
	if late {
		return porcupine.Unknown
	}
	return porcupine.Illegal
}

func must(_ int, err error) {
	if err != nil {
		panic(err)
	}
}
